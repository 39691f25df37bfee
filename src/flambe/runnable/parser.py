"""Sections of options that are read as those of ``configparser`` are, too."""

from __future__ import annotations

import abc
import configparser
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, overload

D = TypeVar("D")
T = TypeVar("T")

_UNSET: Any = object()
_STATES = configparser.ConfigParser.BOOLEAN_STATES


class ParserMapping(Mapping[str, Mapping[str, str]], abc.ABC):
    """A mapping of sections with the methods of :class:`configparser.ConfigParser` that read."""

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
        self, section: str, option: Any = None, *, raw: bool = False, fallback: Any = _UNSET
    ) -> Any:
        """Return the value of an option, or a section.

        Parameters
        ----------
        section
            The name of a section.
        option
            The name of one of its options. What is not text is the default of a section: without an
            option this is the ``get`` of any mapping.
        raw
            Values are always as written.
        fallback
            What is returned where there is no such option.

        Raises
        ------
        ConfigError
            If there is no such option, and no ``fallback``.
        """
        if not isinstance(option, str):
            return super().get(section, option)
        if fallback is not _UNSET and not self.has_option(section, option):
            return fallback
        return self[section][option]

    def getint(self, section: str, option: str, *, fallback: D = _UNSET) -> int | D:
        """Return the value of an option as a whole number."""
        return self._converted(section, option, int, "a whole number", fallback)

    def getfloat(self, section: str, option: str, *, fallback: D = _UNSET) -> float | D:
        """Return the value of an option as a number."""
        return self._converted(section, option, float, "a number", fallback)

    def getboolean(self, section: str, option: str, *, fallback: D = _UNSET) -> bool | D:
        """Return the value of an option as true (1, yes, true, on) or false (0, no, false, off)."""
        states = ", ".join(_STATES)
        return self._converted(
            section, option, lambda text: _STATES[text.lower()], f"one of {states}", fallback
        )

    def _converted(
        self, section: str, option: str, convert: Callable[[str], T], expected: str, fallback: D
    ) -> T | D:
        if fallback is not _UNSET and not self.has_option(section, option):
            return fallback
        value = self.get(section, option)
        try:
            return convert(value)
        except (ValueError, KeyError):
            # Its value may be a secret.
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
