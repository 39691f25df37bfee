"""The earlier result of a variant: its own, or a stale one.

A result belongs to a variant when both have one identity: configuration, ancestors, code and data.
One of the same configuration whose code, data or ancestors have changed since is stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flambe.errors import listed
from flambe.experiment.variants.expansion import Variant
from flambe.progress import VariantState, apply_line


@dataclass(frozen=True)
class EarlierResult:
    """An earlier result of a variant.

    Attributes
    ----------
    entry
        The result.
    changes
        Why it is stale: what has changed since it was made; empty if nothing has.
    unrecorded
        Whether the code and the data that it was made from were not recorded.
    """

    entry: VariantState
    changes: str = ""
    unrecorded: bool = False


class EarlierResults:
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
            other = self._by_config.get(key)
            # The latest that is done, or else the latest.
            if other is None or entry.status.done or not other.status.done:
                self._by_config[key] = entry
        #: Variants of this run that were looked up, by id: ancestors come first.
        self._looked_up: dict[str, Variant] = {}

    @classmethod
    def read(cls, journal: Iterable[Mapping[str, object]]) -> EarlierResults:
        """Return all results that the lines of a journal ever named."""
        current: dict[str, VariantState] = {}
        former: dict[str, VariantState] = {}
        for line in journal:
            before = current.get(str(line.get("id")))
            identity = apply_line(current, line)
            if identity is not None and identity not in current and before is not None:
                former[identity] = before
        return cls({**former, **current})

    def find(self, variant: Variant, *, only_local: bool = False) -> EarlierResult | None:
        """Return the earlier result of a variant, stale or not; None if there is none.

        Parameters
        ----------
        variant
            The variant. Its ancestors must have been looked up before: they may have changed.
        only_local
            Whether data that is not on this machine is taken to be the same.
        """
        self._looked_up[variant.id] = variant
        if variant.id in self.entries:
            return EarlierResult(self.entries[variant.id])
        entry = self._by_config.get(variant.config_id)
        if entry is None or not variant.runs:
            return None
        if _config_id(entry) == entry.id and not (entry.code or entry.data):
            return EarlierResult(entry, unrecorded=True)
        changes = self._changes(variant, entry, only_local=only_local)
        return EarlierResult(entry, listed(changes, 3))

    def _changes(self, variant: Variant, entry: VariantState, *, only_local: bool) -> list[str]:
        """Return what differs between a variant and an earlier result of its configuration."""
        changes = [f"code of {tag} changed" for tag in _differing(variant.code, entry.code)]
        changes += [
            f"{name} changed"
            for name in _differing(variant.data, entry.data)
            if name in variant.data or not only_local
        ]
        for stage in _differing(variant.parents, entry.parents) if not changes else ():
            parent = self._looked_up.get(variant.parents.get(stage, ""))
            before = self.entries.get(entry.parents.get(stage, ""))
            inherited = (
                self._changes(parent, before, only_local=only_local) if parent and before else []
            )
            rerun = [] if only_local else [f"stage {stage!r} was run again"]
            changes += inherited or rerun
        return list(dict.fromkeys(changes))


def _config_id(entry: VariantState) -> str:
    return entry.config_id or entry.id  # in earlier versions, the id was that


def _differing(now: Mapping[str, str], before: Mapping[str, str]) -> Iterable[str]:
    return [name for name in {**before, **now} if now.get(name) != before.get(name)]
