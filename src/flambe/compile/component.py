"""Components: what experiments are made of."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Any

from flambe.compile import workspace
from flambe.compile.registered import Registered
from flambe.compile.schema import Schema
from flambe.compile.state import component_state
from flambe.compile.state.component_state import Stateful


class Component(Registered, Stateful):
    """A part of an experiment: it can be a stage, or stand below one.

    Every keyword under its tag is an argument of ``__init__``. A stage is run by calling
    :meth:`run` until it returns False.
    """

    #: The folder of the variant, for files of its own: they are kept in its checkpoints, and are
    #: restored when the variant continues. No other variant writes there.
    folder: Any = workspace.OwnFolder()

    def run(self) -> object:
        """Do one step, and return True while there is more to do.

        Returns
        -------
        bool, mapping or generator
            True while there is more to do; False or nothing at the end. A mapping of names to
            numbers is logged, and is the end. If it is a generator, each ``yield`` is the end of a
            step, and a mapping that is yielded is logged; interrupted, it begins again at step 1.
            Anything else is an error.
        """
        return False

    def metric(self) -> float | None:
        """Return the figure that search, schedulers and ``reduce`` rank by; higher is better.

        It is one number, or None where there is none yet; anything else is an error.
        """
        return None

    def stopped(self) -> None:
        """Settle after a stop before the end (a hook), before others build on this.

        A scheduler may end a stage at any step: its state is that of the last checkpoint then. A
        component that keeps its best apart from its last brings it forward here.
        """

    def register_attrs(self, *names: str, pickle: bool = False) -> None:
        """Make attributes part of the state.

        Parameters
        ----------
        names
            Attributes that hold numbers, text, bytes, dates, paths, tensors, arrays of NumPy,
            tables of pandas, and containers of those.
        pickle
            Whether they hold anything that can be pickled: a fitted estimator, say. A pickle can
            run code when it is read, so it is a file of its own, which is read only where it is
            trusted: by the runs of the same user, and by ``flambe.load(path, trust=True)``.

        Raises
        ------
        ValueError
            If a name is not one of an attribute.
        """
        if odd := [name for name in names if not name.isidentifier()]:
            raise ValueError(f"register_attrs takes the names of attributes, not {odd[0]!r}")
        registered: list[str] = vars(self).setdefault("_flambe_attributes", [])
        registered += [name for name in names if name not in registered]
        if pickle:
            vars(self).setdefault("_flambe_pickled", []).extend(names)

    def get_state(self) -> component_state.State:
        """Return the state of this component and of all below it.

        Returns
        -------
        dict
            From the path of each component (``""`` for this one, ``"model/encoder"``) to its own
            state. Tensors are not copied.
        """
        return component_state.collect(self)

    def load_state(self, values: Mapping[str, Mapping[str, object]]) -> None:
        """Take the state that :meth:`get_state` returned.

        Raises
        ------
        StateError
            If it does not fit: every difference is named.
        """
        component_state.restore(self, values)

    @classmethod
    def input_files(cls, schema: Schema) -> Iterable[str | os.PathLike[str]]:
        """Return the files that results depend on, of what a blueprint describes (a hook).

        Their content is a part of the identity of a variant, as that of resources is.

        Parameters
        ----------
        schema
            The blueprint of a component of this class; links stand in it as they are written.

        Returns
        -------
        Iterable
            Paths, relative to the current folder. Files that do not exist are ignored.
        """
        return ()

    @classmethod
    def schema(cls, *args: object, **kwargs: object) -> Schema:
        """Return a blueprint of this class, made in Python."""
        return Schema.of(cls, *args, **kwargs)


def runs(cls: type[Component]) -> bool:
    """Whether a class of components has something to run."""
    return cls.run is not Component.run


def component_class(target: object) -> type[Component] | None:
    """Return the class of components that a class, or a factory of one, makes, if it makes any."""
    owner = target if inspect.isclass(target) else getattr(target, "__self__", None)
    return owner if inspect.isclass(owner) and issubclass(owner, Component) else None
