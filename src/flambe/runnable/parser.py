"""Sections of options with the reading methods of ``configparser``."""

from __future__ import annotations

import abc
import configparser
import enum
from collections.abc import Callable, Mapping
from typing import TypeVar, overload

D = TypeVar("D")
T = TypeVar("T")

_STATES = configparser.ConfigParser.BOOLEAN_STATES


class _Unset(enum.Enum):
    """The default of ``fallback``, which may be None."""

    UNSET = enum.auto()


_UNSET = _Unset.UNSET


class ParserMapping(Mapping[str, Mapping[str, str]], abc.ABC):
    """A mapping of sections with the reading methods of :class:`configparser.ConfigParser`."""

    # Mapping.get takes a default where this one takes an option.
    @overload
    def get(self, section: str) -> Mapping[str, str] | None: ...

    @overload
    def get(self, section: str, option: str, *, raw: bool = False, fallback: D) -> str | D: ...

    @overload
    def get(self, section: str, option: str, *, raw: bool = False) -> str: ...

    @overload
    def get(self, section: str, option: D) -> Mapping[str, str] | D: ...

    def get(
        self, section: str, option: object = None, *, raw: bool = False, fallback: object = _UNSET
    ) -> object:
        """Return the value of an option, or a section.

        Parameters
        ----------
        section
            The name of a section.
        option
            The name of one of its options. Anything but text is the default for a missing section:
            without an option this is the ``get`` of any mapping.
        raw
            Has no effect: values are always as written.
        fallback
            What to return if the option does not exist.

        Raises
        ------
        ConfigError
            If the option does not exist, and there is no ``fallback``.
        """
        if not isinstance(option, str):
            return super().get(section, option)
        if fallback is not _UNSET and not self.has_option(section, option):
            return fallback
        return self[section][option]

    @overload
    def getint(self, section: str, option: str) -> int: ...

    @overload
    def getint(self, section: str, option: str, *, fallback: D) -> int | D: ...

    def getint(self, section: str, option: str, *, fallback: object = _UNSET) -> object:
        """Return the value of an option as a whole number."""
        return self._convert(section, option, int, "a whole number", fallback)

    @overload
    def getfloat(self, section: str, option: str) -> float: ...

    @overload
    def getfloat(self, section: str, option: str, *, fallback: D) -> float | D: ...

    def getfloat(self, section: str, option: str, *, fallback: object = _UNSET) -> object:
        """Return the value of an option as a number."""
        return self._convert(section, option, float, "a number", fallback)

    @overload
    def getboolean(self, section: str, option: str) -> bool: ...

    @overload
    def getboolean(self, section: str, option: str, *, fallback: D) -> bool | D: ...

    def getboolean(self, section: str, option: str, *, fallback: object = _UNSET) -> object:
        """Return the value of an option as true (1, yes, true, on) or false (0, no, false, off)."""
        states = ", ".join(_STATES)
        return self._convert(
            section, option, lambda text: _STATES[text.lower()], f"one of {states}", fallback
        )

    def _convert(
        self,
        section: str,
        option: str,
        convert: Callable[[str], T],
        expected: str,
        fallback: D | _Unset,
    ) -> T | D:
        if not isinstance(fallback, _Unset) and not self.has_option(section, option):
            return fallback
        value = self.get(section, option)
        try:
            return convert(value)
        except (ValueError, KeyError):
            # The message leaves the value out: it may be a secret.
            raise ValueError(f"[{section}] {option} is not {expected}") from None

    def sections(self) -> list[str]:
        """Return the names of all sections."""
        return list(self)

    def options(self, section: str) -> list[str]:
        """Return the names of the options of a section."""
        return list(self[section])

    def has_section(self, section: str) -> bool:
        """Whether there is a section of that name."""
        return section in self

    def has_option(self, section: str, option: str) -> bool:
        """Whether a section has an option of that name."""
        return section in self and option in self[section]
