"""The earlier result of a variant: its own, or a stale one.

A result belongs to a variant when both have one identity: configuration, ancestors, code, packages
and data. One of the same configuration whose code, packages, data or ancestors have changed since
is stale.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flambe.errors import listed
from flambe.experiment.variants.expansion import Expander, Variant
from flambe.progress import RunFolder, Status, VariantState, apply_line, read_lines


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


@dataclass(frozen=True)
class FormerResult:
    """A result in the folder of a run that is no part of the run any more.

    Attributes
    ----------
    entry
        The result, as it was recorded.
    reason
        Why it is no part of the run.
    """

    entry: VariantState
    reason: str


@dataclass
class _Differences:
    changes: list[str] = field(default_factory=list)
    unrecorded: bool = False


_DONE = {status.value for status in Status if status.done}


class EarlierResults:
    """The results of earlier runs in a folder.

    Parameters
    ----------
    entries
        By their ids; those that no longer belonged to the last run included.
    last
        What belonged to the last run, by id.
    """

    def __init__(
        self,
        entries: Mapping[str, VariantState],
        last: Mapping[str, VariantState] | None = None,
    ) -> None:
        self.entries = dict(entries)
        self.last = dict(last or {})
        self._by_config: dict[str, list[VariantState]] = {}
        for entry in self.entries.values():
            self._by_config.setdefault(_config_id(entry), []).append(entry)
        for group in self._by_config.values():
            # The latest that is done comes first, then the latest.
            group.reverse()
            group.sort(key=lambda entry: not entry.status.done)
        #: Whether there are results of versions that did not record packages.
        self._former = any(not entry.packages for entry in self.entries.values())
        #: Variants of this run that were looked up, by id: ancestors come first.
        self.looked_up: dict[str, Variant] = {}

    @classmethod
    def read(cls, journal: Iterable[Mapping[str, object]]) -> EarlierResults:
        """Return all results that the lines of a journal ever named."""
        current: dict[str, VariantState] = {}
        former: dict[str, VariantState] = {}
        done: dict[str, VariantState] = {}
        for line in journal:
            identity = str(line.get("id"))
            before = current.get(identity)
            status = line.get("status", Status.FINISHED.value)
            if before is not None and before.status.done and status not in _DONE:
                done[identity] = copy.copy(before)  # a run masks it, or begins it again
            if apply_line(current, line) is not None and identity not in current and before:
                former[identity] = before
        entries = {**former, **current}
        for identity, entry in done.items():
            latest = entries[identity]
            if not latest.status.done and not latest.step:
                entry.stage, entry.name = latest.stage, latest.name
                entries[identity] = entry
        return cls(entries, current)

    def find(
        self, variant: Variant, expander: Expander, *, only_local: bool = False
    ) -> EarlierResult | None:
        """Return the earlier result of a variant, stale or not; None if there is none.

        Parameters
        ----------
        variant
            The variant. Its ancestors must have been looked up before: they may have changed.
        expander
            What made it.
        only_local
            Whether data that is not on this machine is taken to be the same.
        """
        self.looked_up[variant.id] = variant
        if variant.id in self.entries:
            return EarlierResult(self.entries[variant.id])
        stale: EarlierResult | None = None
        for entry in self._candidates(variant, expander):
            if _is_of_first_version(entry):
                return EarlierResult(entry, unrecorded=True)
            found = self._differences(variant, entry, expander, only_local=only_local)
            if not found.changes:
                return EarlierResult(entry, unrecorded=found.unrecorded)
            stale = stale or EarlierResult(entry, listed(found.changes, 3))
        return stale if variant.runs else None

    def _candidates(self, variant: Variant, expander: Expander) -> Iterator[VariantState]:
        """Yield the results of the configuration of a variant, the likeliest first."""
        if self._former:
            entry = self.entries.get(expander.former_id(variant))
            if entry is not None:
                yield entry
        yield from self._by_config.get(variant.config_id, ())

    def _differences(
        self, variant: Variant, entry: VariantState, expander: Expander, *, only_local: bool
    ) -> _Differences:
        """Return what differs between a variant and an earlier result of its configuration."""
        differences = _Differences()
        _compare_code(variant, entry, expander, differences)
        differences.changes += [
            f"{name} changed"
            for name in _differing(variant.data, entry.data)
            if name in variant.data or not only_local
        ]
        if differences.changes:
            return differences
        for stage, parent_id in variant.parents.items():
            before_id = self._parent_before(stage, parent_id, entry, expander)
            if before_id == parent_id:
                continue
            parent, before = self.looked_up.get(parent_id), self.entries.get(before_id)
            inherited: list[str] = []
            if parent is not None and before is not None:
                inherited = self._differences(
                    parent, before, expander, only_local=only_local
                ).changes
            texts = [text if text.startswith(_OF_ANCESTOR) else f"{_OF_ANCESTOR}{stage}: {text}"
                     for text in inherited]  # fmt: skip
            rerun = [] if only_local else [f"stage {stage!r} was run again"]
            differences.changes += texts or rerun
        differences.changes = list(dict.fromkeys(differences.changes))
        return differences

    def _parent_before(
        self, stage: str, parent_id: str, entry: VariantState, expander: Expander
    ) -> str:
        """Return the id of the ancestor of a result that is the one of a stage of today."""
        if parent_id in entry.parents.values():
            return parent_id
        for name in (stage, expander.origin(stage)):
            if name in entry.parents:
                return entry.parents[name]
        parent = self.looked_up.get(parent_id)
        for before_id in entry.parents.values():  # it was renamed more than once
            before = self.entries.get(before_id)
            if parent is not None and before is not None and before.config_id == parent.config_id:
                return before_id
        return ""


_OF_ANCESTOR = "ancestor "


def former_results(folder: RunFolder) -> list[FormerResult]:
    """Return the results in the folder of a run that are no part of the run, with their reasons.

    They are kept for configurations to which you may return: ``--resume`` finds them again. Those
    whose files are gone are left out.
    """
    reasons: dict[str, str] = {}
    lines = []
    for line in read_lines(folder.variants):
        if line.get("gone"):
            reasons[str(line.get("id"))] = str(line.get("reason") or "no longer in the file")
        lines.append(line)
    results = EarlierResults.read(lines)
    former = []
    for identity, entry in results.entries.items():
        current = results.last.get(identity)
        if current is not None and current.status is Status.MASKED and entry is not current:
            former.append(FormerResult(entry, current.reason))
        elif current is None:
            former.append(FormerResult(entry, reasons.get(identity, "no longer in the file")))
    return [
        result
        for result in former
        if result.entry.step or result.entry.status.done
        if folder.variant(result.entry.stage, result.entry.name).is_dir()
    ]


def _compare_code(
    variant: Variant, entry: VariantState, expander: Expander, differences: _Differences
) -> None:
    """Note which code and which packages of a variant and of a result differ."""
    mode, former = expander.inputs.fingerprint, expander.former_code(variant)
    if mode == "off":
        return
    for tag, value in variant.code.items():
        if tag not in entry.code:
            differences.unrecorded = True
        elif entry.code[tag] not in (value, former.get(tag)):
            differences.changes.append(f"code of {tag} changed")
    if mode == "source":
        differences.changes += [
            f"code of {tag} changed" for tag in entry.code if tag not in variant.code
        ]
    for name, version in variant.packages.items():
        before = entry.packages.get(name, version)  # of earlier versions it is not recorded
        if before != version:
            differences.changes.append(f"{name} {before} → {version}")


def _is_of_first_version(entry: VariantState) -> bool:
    """Whether a result was made when an identity was that of the configuration alone."""
    return _config_id(entry) == entry.id and not (entry.code or entry.data or entry.packages)


def _config_id(entry: VariantState) -> str:
    return entry.config_id or entry.id  # in earlier versions, the id was that


def _differing(now: Mapping[str, str], before: Mapping[str, str]) -> Iterable[str]:
    return [name for name in {**before, **now} if now.get(name) != before.get(name)]
