"""Secrets: an INI file that nobody else may read, whose values are never shown."""

from __future__ import annotations

import configparser
import io
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.logging import redact
from flambe.logging.console import home
from flambe.runnable.parser import ParserMapping

#: The section whose keys are environment variables of what runs.
ENVIRONMENT = "environment"
#: The section of what flambe itself is told; nothing in it is secret.
SETTINGS = "flambe"


class MissingSecretError(ConfigError, KeyError):
    """There is no such secret; also a KeyError, so that ``in`` and ``get`` work as ever."""

    __repr__ = Exception.__repr__

    def __init__(self, problems: Problem) -> None:
        super().__init__(problems)
        self.message = str(self)  # as the errors of configparser have it


class MissingSectionError(MissingSecretError, configparser.NoSectionError):
    """There is no such section; also the error that a ``ConfigParser`` raises then."""


class MissingOptionError(MissingSecretError, configparser.NoOptionError):
    """There is no such key in a section; also the error that a ``ConfigParser`` raises then."""


class Secret(str):
    """Text that is shown as ``***``; it is used like any other text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{redact.MASK}'"


class Secrets(ParserMapping):
    """``config['SECTION']['KEY']``: the values of a secrets file.

    It is read as a :class:`configparser.ConfigParser` is, too: ``config.get('SECTION', 'KEY')``.
    """

    def __init__(self, sections: Mapping[str, Mapping[str, str]], origin: str = "") -> None:
        self._origin = origin
        self._sections = {name: _Section(name, values, origin) for name, values in sections.items()}

    @classmethod
    def read(cls, path: Path | None) -> Secrets:
        """Read a file; the default one (``~/.flambe/secrets.ini``) need not exist.

        Raises
        ------
        ConfigError
            If the file is missing, open to other users, or not an INI file.
        """
        file = path or home() / "secrets.ini"
        try:
            mode = file.stat().st_mode
            if mode & (stat.S_IROTH | stat.S_IWOTH):
                raise ConfigError(
                    Problem(
                        f"the secrets file {file} can be read by every user of this machine",
                        hint=f"chmod 600 {file}",
                    )
                )
            text = file.read_text(encoding="utf-8-sig")  # some editors mark it
        except FileNotFoundError:
            if path is None:
                return cls({}, str(file))
            raise ConfigError(f"there is no secrets file {file}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the secrets file {file}: {error}") from None
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
        try:
            parser.read_string(text, source=str(file))
        except configparser.Error as error:
            # The message of the parser may hold the line, and so a secret.
            line = getattr(error, "lineno", None)
            where = f"{file}:{line}" if line else str(file)
            raise ConfigError(f"{where}: not an INI file: {type(error).__name__}") from None
        return cls({name: dict(parser[name]) for name in parser.sections()}, str(file))

    @property
    def origin(self) -> str:
        """The file that they were read from."""
        return self._origin

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of ``[environment]``; an empty one is taken from here."""
        if ENVIRONMENT not in self:
            return {}
        return {
            name: value or os.environ.get(name, "") for name, value in self[ENVIRONMENT].items()
        }

    @property
    def unmaskable(self) -> list[str]:
        """What is too short to be hidden in logs: ``[section] key``; variables are left out."""
        return [
            f"[{name}] {key}"
            for name in self
            if name not in (ENVIRONMENT, SETTINGS)
            for key, value in self[name].items()
            if 0 < len(value) < redact.SHORTEST
        ]

    def export(self) -> None:
        """Set them in this process; unlike those of its start, nobody sees them from outside."""
        for name, value in self.variables.items():
            redact.add(value)
            os.environ[name] = value

    def for_orchestrator(self) -> str:
        """Return all sections as an INI file, with the values that variables have here."""
        return _written({name: self._filled(name) for name in self})

    def _filled(self, section: str) -> Mapping[str, str]:
        return self.variables if section == ENVIRONMENT else self[section]

    def for_factories(self) -> str:
        """Return, as an INI file, the sections that ``[flambe] factories`` names: ``A, B``.

        Raises
        ------
        ConfigError
            If one of them is not there.
        """
        named = self[SETTINGS].get("factories", "") if SETTINGS in self else ""
        names = [part.strip() for part in named.split(",") if part.strip()]
        return _written({name: self._filled(name) for name in names})

    def __getitem__(self, section: str) -> Mapping[str, str]:
        try:
            return self._sections[section]
        except KeyError:
            raise MissingSectionError(
                _missing(f"section [{section}]", section, self, self._origin)
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._sections)})"


class _Section(Mapping[str, str]):
    def __init__(self, name: str, values: Mapping[str, str], origin: str) -> None:
        self._name, self._origin = name, origin
        if name == SETTINGS:
            self._values: dict[str, str] = dict(values)
            return
        self._values = {key: Secret(value) for key, value in values.items()}
        for value in self._values.values():
            redact.add(value)

    def __getitem__(self, key: str) -> str:
        # As in a ConfigParser, upper and lower case are the same, where only one key is meant.
        alike = [name for name in self._values if name.lower() == str(key).lower()]
        if key in self._values or len(alike) == 1:
            return self._values[key if key in self._values else alike[0]]
        what = f"key {key!r} in section [{self._name}]"
        raise MissingOptionError(_missing(what, key, self, self._origin))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key}: {redact.MASK}' for key in self._values)}}}"


def _written(sections: Mapping[str, Mapping[str, str]]) -> str:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for name, values in sections.items():
        parser[name] = {key: str(value) for key, value in values.items()}
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _missing(what: str, name: str, known: Mapping[str, object], origin: str) -> Problem:
    return Problem(
        f"there is no {what} in the secrets",
        hint=did_you_mean(name, known) or f"add it to {origin or 'the secrets file'}",
    )
