"""A container, and the options that create one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flambe.errors import ConfigError


@dataclass(frozen=True)
class Container:
    """A container on a host, in the state in which it was when the host was asked.

    Attributes
    ----------
    host
        The host: ``orchestrator``, ``factory_1`` …
    id
        Docker's identifier.
    name
        Its name; Docker generates one by default.
    image
        The image that it was created from.
    status
        ``running``, ``created``, ``exited (3)`` …; ``removed`` when it no longer exists.
    output
        Its standard output, if it was waited for.
    """

    host: str
    id: str
    name: str
    image: str
    status: str
    output: str = ""


@dataclass(frozen=True)
class ContainerSpec:
    """A container to create, with the options of :meth:`flambe.cluster.services.docker.Docker.run`.

    Raises
    ------
    ConfigError
        If Docker would misread the image, or an environment variable.
    """

    image: str
    command: Sequence[str] = ()
    name: str | None = None
    env: Mapping[str, str] | None = None
    ports: Mapping[int | str, int | str] | None = None
    volumes: Mapping[str, str] | None = None
    gpus: bool = False
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.image.startswith("-"):
            raise ConfigError(f"{self.image!r} is not an image: docker would take it for an option")
        for key, value in (self.env or {}).items():
            _check_variable(key, value)

    def flags(self, home: str) -> list[str]:
        """Return the options of ``docker create``; volumes start at the home of the user."""
        flags = []
        if self.name is not None:
            flags += [f"--name={self.name}", f"--label=flambe.name={self.name}"]
        flags += [f"--publish={outer}:{inner}" for outer, inner in (self.ports or {}).items()]
        flags += ["--gpus=all"] if self.gpus else []
        flags += self.options
        for source, target in (self.volumes or {}).items():
            flags.append(f"--volume={posixpath.join(home, source)}:{target}")
        return flags

    @property
    def env_file(self) -> str:
        """The environment variables as Docker reads them: one per line, without quoting."""
        return "".join(f"{key}={value}\n" for key, value in (self.env or {}).items())


def _check_variable(key: str, value: str) -> None:
    if not re.fullmatch(r"[^\s=#][^\s=]*", key):
        raise ConfigError(f"{key!r} is not a name of an environment variable")
    if re.search(r"[\n\r\0]", value):
        raise ConfigError(
            f"env {key}: the value has more than one line, which Docker cannot read: write it "
            "to a file (host.put, mode=0o600), and mount that with volumes"
        )
