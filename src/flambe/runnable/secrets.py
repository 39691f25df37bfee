"""Secrets: an INI file that only its owner may read, whose values are never shown."""

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
#: The section of settings for flambe itself, none of them secret.
SETTINGS = "flambe"


class MissingSecretError(ConfigError, KeyError):
    """A secret does not exist; also a KeyError, so that ``in`` and ``get`` work as usual."""

    __repr__ = Exception.__repr__

    def __init__(self, problems: Problem) -> None:
        super().__init__(problems)
        self.message = str(self)  # an attribute of configparser's errors


class MissingSectionError(MissingSecretError, configparser.NoSectionError):
    """A section does not exist; also the error that a ``ConfigParser`` raises then."""


class MissingOptionError(MissingSecretError, configparser.NoOptionError):
    """A section has no such key; also the error that a ``ConfigParser`` raises then."""


class Secret(str):
    """Text whose repr is ``***``; it is used like any other text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{redact.MASK}'"


class Secrets(ParserMapping):
    """``config['SECTION']['KEY']``: the values of a secrets file.

    It can be read like a :class:`configparser.ConfigParser`, too: ``config.get('SECTION', 'KEY')``.
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
            text = file.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
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
            # The parser's message may contain the line, and so a secret.
            line = getattr(error, "lineno", None)
            location = f"{file}:{line}" if line else str(file)
            raise ConfigError(f"{location}: not an INI file: {type(error).__name__}") from None
        return cls({name: dict(parser[name]) for name in parser.sections()}, str(file))

    @property
    def origin(self) -> str:
        """The file that they were read from."""
        return self._origin

    @property
    def variables(self) -> dict[str, str]:
        """The variables of ``[environment]``; an empty one gets its value in this process."""
        if ENVIRONMENT not in self:
            return {}
        return {
            name: value or os.environ.get(name, "") for name, value in self[ENVIRONMENT].items()
        }

    @property
    def unmaskable(self) -> list[str]:
        """The secrets that are too short to be masked in logs: ``[section] key``."""
        return [
            f"[{name}] {key}"
            for name in self
            if name not in (ENVIRONMENT, SETTINGS)
            for key, value in self[name].items()
            if 0 < len(value) < redact.SHORTEST
        ]

    def export(self) -> None:
        """Set the variables in this process: unlike at its start, other users do not see them."""
        for name, value in self.variables.items():
            redact.add(value)
            os.environ[name] = value

    def for_orchestrator(self) -> str:
        """Return all sections as an INI file, with the values that variables have here."""
        return _to_ini({name: self._filled(name) for name in self})

    def _filled(self, section: str) -> Mapping[str, str]:
        return self.variables if section == ENVIRONMENT else self[section]

    def for_factories(self) -> str:
        """Return, as an INI file, the sections that ``[flambe] factories`` names: ``A, B``.

        Raises
        ------
        ConfigError
            If one of them does not exist.
        """
        setting = self[SETTINGS].get("factories", "") if SETTINGS in self else ""
        names = [part.strip() for part in setting.split(",") if part.strip()]
        return _to_ini({name: self._filled(name) for name in names})

    def __getitem__(self, section: str) -> Mapping[str, str]:
        try:
            return self._sections[section]
        except KeyError:
            raise MissingSectionError(
                _missing_problem(f"section [{section}]", section, self, self._origin)
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
        # Case does not matter, as in a ConfigParser, unless keys differ by nothing else.
        matches = [name for name in self._values if name.lower() == str(key).lower()]
        if key in self._values or len(matches) == 1:
            return self._values[key if key in self._values else matches[0]]
        subject = f"key {key!r} in section [{self._name}]"
        raise MissingOptionError(_missing_problem(subject, key, self, self._origin))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{key}: {redact.MASK}' for key in self._values)}}}"


def _to_ini(sections: Mapping[str, Mapping[str, str]]) -> str:
    """Return sections as an INI file."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for name, values in sections.items():
        parser[name] = {key: str(value) for key, value in values.items()}
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def _missing_problem(
    subject: str, name: str, existing: Mapping[str, object], origin: str
) -> Problem:
    return Problem(
        f"there is no {subject} in the secrets",
        hint=did_you_mean(name, existing) or f"add it to {origin or 'the secrets file'}",
    )
