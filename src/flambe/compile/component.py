"""The bases that make a class usable as a tag."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from flambe.compile import tags, workspace
from flambe.compile.state import component_state
from flambe.compile.values import Schema

R = TypeVar("R", bound="Registered")


class Registered:
    """Base of all classes that are tags by being defined.

    What a constructor is called with is kept, so that an object that was made in Python can be
    written as YAML too.
    """

    _flambe_reads_yaml: ClassVar[bool] = False
    _flambe_aliases: ClassVar[list[str]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(names := cls.__dict__.get("_transient"), str):
            raise TypeError(f"{cls.__name__}._transient takes several names: write ({names!r},)")
        tags.register(cls)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        # Only the outermost constructor sees what the object was made with. The instance's
        # dictionary is used, for a torch.nn.Module takes no attributes before its own __init__.
        workspace.give(self)
        if "_flambe_arguments" not in vars(self):
            try:
                bound = inspect.signature(init).bind(self, *args, **kwargs).arguments
            except TypeError:
                bound = {}
            vars(self)["_flambe_arguments"] = dict(list(bound.items())[1:])
        init(self, *args, **kwargs)

    return wrapper


class Registrable(Registered):
    """A class that reads and writes its own YAML.

    The node may be a scalar, a list or a mapping; tags inside it are built.

    Examples
    --------
    >>> class Version(Registrable):
    ...     def __init__(self, major, minor):
    ...         self.parts = major, minor
    ...     @classmethod
    ...     def from_yaml(cls, value):            # !Version 1.2
    ...         return cls(*str(value).split("."))
    ...     def to_yaml(self):
    ...         return ".".join(self.parts)
    """

    _flambe_reads_yaml: ClassVar[bool] = True

    @classmethod
    def from_yaml(cls: type[R], value: Any) -> R:
        """Make the object from the content of its node."""
        raise NotImplementedError(f"{cls.__name__} must implement from_yaml(value)")

    def to_yaml(self) -> Any:
        """Return the content of the node: a scalar, a list or a mapping."""
        raise NotImplementedError(f"{type(self).__name__} must implement to_yaml()")


class MappedRegistrable(Registrable):
    """A class whose keywords are loaded as they are read, with no delayed construction."""

    _flambe_reads_yaml: ClassVar[bool] = False

    @classmethod
    def from_yaml(cls: type[R], value: Mapping[str, Any]) -> R:
        """Call the constructor with the mapping."""
        return cls(**value)

    def to_yaml(self) -> Any:
        """Return the keywords that the object was made with."""
        return vars(self).get("_flambe_arguments", {})


class Component(Registered):
    """A part of an experiment: it can be a stage, or stand below one.

    Every keyword under its tag is an argument of ``__init__``. A stage is run by calling
    :meth:`run` until it returns False.
    """

    #: Stored with the state and compared when it is loaded; ``"0.0.0"`` means not versioned.
    _flambe_version: ClassVar[str] = "0.0.0"
    #: Attributes that change while it runs, and that nothing depends on: caches, say.
    _transient: ClassVar[tuple[str, ...]] = ()

    #: The folder of the variant, for files of its own: they are kept in its checkpoints, and are
    #: there again when it goes on. Nobody else writes there.
    folder: Any = workspace.OwnFolder()

    def run(self) -> Any:
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
        known: list[str] = vars(self).setdefault("_flambe_attributes", [])
        known += [name for name in names if name not in known]
        if pickle:
            vars(self).setdefault("_flambe_pickled", []).extend(names)

    def get_state(self) -> dict[str, dict[str, Any]]:
        """Return the state of this component and of all below it.

        Returns
        -------
        dict
            From the path of each component (``""`` for this one, ``"model/encoder"``) to its own
            state. Tensors are not copied.
        """
        return component_state.collect(self)

    def load_state(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the state that :meth:`get_state` returned.

        Raises
        ------
        StateError
            If it does not fit: every difference is named.
        """
        component_state.restore(self, values)

    def _state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Change, before it is saved, the component's own state (a hook)."""
        return values

    def _load_state(self, values: dict[str, Any]) -> dict[str, Any]:
        """Change, before it is loaded, the component's own state (a hook)."""
        return values

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
            Paths, from the current folder on. Files that are not there are passed over.
        """
        return ()

    @classmethod
    def schema(cls, *args: Any, **kwargs: Any) -> Schema:
        """Return a blueprint of this class, made in Python."""
        return Schema.of(cls, *args, **kwargs)


def runs(cls: type[Component]) -> bool:
    """Whether a class of components has something to run."""
    return cls.run is not Component.run


def component_class(target: Any) -> type[Component] | None:
    """Return the class of components that a class, or a factory of one, makes; None if of none."""
    owner = target if inspect.isclass(target) else getattr(target, "__self__", None)
    return owner if inspect.isclass(owner) and issubclass(owner, Component) else None
