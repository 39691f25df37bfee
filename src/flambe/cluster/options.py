"""``environment`` of a cluster, as its steps use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.logging import redact
from flambe.runnable.secrets import Secret

#: A problem with a keyword of a cluster file: the path of the value, the problem, a hint.
Finding = tuple[tuple[str | int, ...], str, str]


@dataclass(frozen=True)
class EnvironmentOptions:
    """How hosts get their Python packages.

    Attributes
    ----------
    extras
        Extras of flambe to install.
    index_url
        The package index; hidden when printed, because it may hold a password.
    find_links
        Folders on the orchestrator, or URLs, that hold wheels.
    offline
        Hosts reach no index: every wheel is uploaded from here.
    system
        Hosts use the packages of their own Python.
    proxy
        The HTTP proxy that leads to the index; hidden when printed.
    python
        The Python version that is installed on the hosts, in place of their own.
    python_mirror
        Where that version is downloaded from.
    """

    extras: tuple[str, ...] = ()
    index_url: str = ""
    find_links: tuple[str, ...] = ()
    offline: bool = False
    system: bool = False
    proxy: str = ""
    python: str = ""
    python_mirror: str = ""

    @classmethod
    def of(cls, keywords: Mapping[str, object] | None) -> EnvironmentOptions:
        """Return the options that the keywords of a cluster file describe.

        Raises
        ------
        ConfigError
            If there is no such keyword.
        """
        values = keywords or {}
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                hint = did_you_mean(str(name), names) or f"expected {', '.join(names)}"
                raise ConfigError(Problem(f"environment: unknown keyword {name!r}", hint=hint))
        return cls(
            extras=_texts(values.get("extras")),
            index_url=_secret(values.get("index_url")),
            find_links=_texts(values.get("find_links")),
            offline=bool(values.get("offline")),
            system=bool(values.get("system")),
            proxy=_secret(values.get("proxy")),
            python=_text(values.get("python")),
            python_mirror=_text(values.get("python_mirror")),
        )


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _texts(value: object) -> tuple[str, ...]:
    """Return one text or a list of them as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, Sequence) else ()


def _secret(value: object) -> str:
    """Return a URL whose password is hidden from here on."""
    if not isinstance(value, str) or not value:
        return ""
    redact.add_url(value)
    return Secret(value)
