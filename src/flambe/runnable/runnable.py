"""Runnable and ClusterRunnable: what the ``flambe`` command runs."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from flambe.compile import Schema
from flambe.compile.registered import Registered
from flambe.runnable.environment import RemoteEnvironment
from flambe.runnable.secrets import Secrets

if TYPE_CHECKING:
    # The cluster room comes above this one.
    Cluster = Any


class Runnable(Registered, abc.ABC):
    """Something that can be run: the last document of a configuration.

    Every keyword under its tag is an argument of ``__init__``. A parameter whose annotation is a
    :class:`Schema` gets the blueprint; any other gets built objects.

    Attributes
    ----------
    config
        The secrets: ``self.config['SECTION']['KEY']``, or ``self.config.get('SECTION', 'KEY')``.
    user_provider
        As in the constructor.

    Parameters
    ----------
    user_provider
        A function that returns the name of the user who runs it. flambe's own experiments record
        it; to others it is theirs.
    """

    config: Secrets = Secrets({})
    #: As in the constructor: there also if a subclass does not call it.
    user_provider: Any = None

    def __init__(self, user_provider: Any = None) -> None:
        self.user_provider = user_provider

    def parse(self) -> None:
        """Validate; called before anything runs.

        Raises
        ------
        ConfigError
            If the object cannot be run as it is configured.
        """

    @abc.abstractmethod
    def run(self, force: bool = False, **kwargs: Any) -> None:
        """Run.

        Parameters
        ----------
        force
            Whether results that are there may be put aside.
        kwargs
            The other options of the command: ``resume``, ``debug``, ``verbose``.
        """


class ClusterRunnable(Runnable):
    """A Runnable that can run on a cluster.

    Parameters
    ----------
    env
        The cluster that it runs on; None when local. A constructor of a subclass has this keyword
        too, and gives it on: it travels to the cluster in the configuration.
    user_provider
        See :class:`Runnable`.
    """

    #: Whether it is about to be run on a cluster; its ``env`` is not known yet.
    on_cluster = False
    #: Whether it needs a host that does the heavy work, beside the orchestrator.
    needs_workers: ClassVar[bool] = False

    def __init__(self, env: RemoteEnvironment | None = None, user_provider: Any = None) -> None:
        super().__init__(user_provider)
        self.env = env

    @abc.abstractmethod
    def setup(
        self, cluster: Cluster, extensions: dict[str, str], force: bool, **kwargs: Any
    ) -> None:
        """Prepare the cluster to run this: create folders, send data, start containers.

        It runs on the user's machine. An attribute that is changed here and that :meth:`run` needs
        is set with :meth:`set_serializable_attr`.
        """

    def set_serializable_attr(self, name: str, value: Any) -> None:
        """Set an attribute, and the keyword of that name in the configuration that is sent.

        Parameters
        ----------
        name
            A keyword of the constructor.
        value
            Something with a YAML form.

        Raises
        ------
        AttributeError
            If the constructor has no such keyword: the value would be lost on the way.
        """
        from flambe.compile import signatures

        if not signatures.takes(type(self), name):
            raise AttributeError(
                f"{type(self).__name__} has no keyword {name!r}: an attribute travels to the "
                "cluster as a keyword of the constructor"
            )
        setattr(self, name, value)
        origin = vars(self).get("_flambe_origin")
        if origin is not None:
            schema: Schema = origin.schema
            origin.schema = dataclasses.replace(schema, kwargs={**schema.kwargs, name: value})
        else:
            vars(self).setdefault("_flambe_arguments", {})[name] = value
