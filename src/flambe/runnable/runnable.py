"""Runnable and ClusterRunnable: what the ``flambe`` command runs."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from flambe.compile import Schema
from flambe.compile.registered import Registered
from flambe.runnable.environment import RemoteEnvironment
from flambe.runnable.run_setup import RunSetup
from flambe.runnable.secrets import Secrets


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
        A function that returns the name of the user who runs it. Experiments record that name;
        other runnables may use it as they like.
    """

    config: Secrets = Secrets({})
    # A class attribute, for subclasses whose constructor does not call this one. Any: files may
    # give it any value, and subclasses call it.
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
    def run(self, force: bool = False, **kwargs: object) -> object:
        """Run; what it returns is for callers in Python, and the command does not use it.

        Parameters
        ----------
        force
            Whether existing results may be put aside.
        kwargs
            The other options of the command: ``resume``, ``debug``, ``verbose``.
        """


class ClusterRunnable(Runnable):
    """A Runnable that can run on a cluster.

    Parameters
    ----------
    env
        The cluster that it runs on; None when local. The constructor of a subclass has this keyword
        too, and passes it on: it travels to the cluster in the configuration.
    user_provider
        See :class:`Runnable`.
    """

    #: Whether it is about to run on a cluster; its ``env`` is not set yet.
    on_cluster = False
    #: Whether it needs a host that does the heavy work, besides the orchestrator.
    needs_workers: ClassVar[bool] = False
    #: What :meth:`setup` made for the run: environment variables, commands at its end.
    run_setup: RunSetup = RunSetup()

    def __init__(self, env: RemoteEnvironment | None = None, user_provider: Any = None) -> None:
        super().__init__(user_provider)
        self.env = env

    # Any: this room does not know Cluster, and subclasses name it, or a kind of it.
    @abc.abstractmethod
    def setup(
        self, cluster: Any, extensions: dict[str, str], force: bool, **kwargs: object
    ) -> None:
        """Prepare the cluster to run this: create folders, send data, start containers.

        It runs on the user's machine. Attributes that it changes and that :meth:`run` needs are set
        with :meth:`set_serializable_attr`.

        Parameters
        ----------
        cluster
            The :class:`~flambe.cluster.Cluster`.
        extensions
            Top-level module → where it comes from, as the configuration declares it.
        force
            As in :meth:`run`.
        kwargs
            As in :meth:`run`.
        """

    def set_serializable_attr(self, name: str, value: object) -> None:
        """Set an attribute, and the keyword of that name in the configuration that is sent.

        Parameters
        ----------
        name
            A keyword of the constructor.
        value
            A value that YAML can represent.

        Raises
        ------
        AttributeError
            If the constructor has no such keyword: the value could not travel to the cluster.
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
