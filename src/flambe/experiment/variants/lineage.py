"""Which earlier results a variant has: its own, or stale ones.

A result belongs to a variant when both have one identity: configuration, ancestors, code and data.
One of the same configuration whose code, data or ancestors have changed since is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flambe.errors import listed
from flambe.experiment.variants.expansion import Variant
from flambe.progress import VariantState, apply_line


@dataclass(frozen=True)
class Found:
    """An earlier result of a variant.

    Attributes
    ----------
    entry
        The result.
    changes
        Why it is stale: what has changed since it was made; empty if nothing has.
    unknown
        Whether nobody noted what code and data it was made from.
    """

    entry: VariantState
    changes: str = ""
    unknown: bool = False


class Earlier:
    """The results of earlier runs in a folder.

    Parameters
    ----------
    entries
        By their ids; those that no longer belonged to the last run included.
    """

    def __init__(self, entries: Mapping[str, VariantState]) -> None:
        self.entries = dict(entries)
        self._by_config: dict[str, VariantState] = {}
        for entry in self.entries.values():
            key = _config_id(entry)
            known = self._by_config.get(key)
            # The latest, but of what is done the latest of these.
            if known is None or entry.status.done or not known.status.done:
                self._by_config[key] = entry
        #: Variants of this run by id, as they are asked for: ancestors come first.
        self._asked: dict[str, Variant] = {}

    @classmethod
    def read(cls, journal: Iterable[Mapping[str, Any]]) -> Earlier:
        """Return all results that the lines of a journal ever named."""
        known: dict[str, VariantState] = {}
        former: dict[str, VariantState] = {}
        for line in journal:
            before = known.get(str(line.get("id")))
            identity = apply_line(known, line)
            if identity is not None and identity not in known and before is not None:
                former[identity] = before
        return cls({**former, **known})

    def find(self, variant: Variant, *, only_known: bool = False) -> Found | None:
        """Return the earlier result of a variant, stale or not; None if there is none.

        Parameters
        ----------
        variant
            The variant. Its ancestors must have been asked for before: what changed may be theirs.
        only_known
            Whether data whose content is not known here is taken to be the same.
        """
        self._asked[variant.id] = variant
        if variant.id in self.entries:
            return Found(self.entries[variant.id])
        entry = self._by_config.get(variant.config_id)
        if entry is None or not variant.runs:
            return None
        if _config_id(entry) == entry.id and not (entry.code or entry.data):
            return Found(entry, unknown=True)
        changes = self._changes(variant, entry, only_known=only_known)
        return Found(entry, listed(changes, 3))

    def _changes(self, variant: Variant, entry: VariantState, *, only_known: bool) -> list[str]:
        """Return what differs between a variant and an earlier result of its configuration."""
        found = [f"code of {tag} changed" for tag in _differing(variant.code, entry.code)]
        found += [
            f"{name} changed"
            for name in _differing(variant.data, entry.data)
            if name in variant.data or not only_known
        ]
        for stage in _differing(variant.parents, entry.parents) if not found else ():
            parent = self._asked.get(variant.parents.get(stage, ""))
            before = self.entries.get(entry.parents.get(stage, ""))
            above = (
                self._changes(parent, before, only_known=only_known) if parent and before else []
            )
            found += above if above or only_known else [f"stage {stage!r} was run again"]
        return list(dict.fromkeys(found))


def _config_id(entry: VariantState) -> str:
    return entry.config_id or entry.id  # before there was one, the id was that


def _differing(now: Mapping[str, str], before: Mapping[str, str]) -> Iterable[str]:
    return [name for name in {**before, **now} if now.get(name) != before.get(name)]
