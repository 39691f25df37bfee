"""Which results of earlier runs are there to be used: what a run finds, and what a plan foretells.

The journal says what was done. Whether it can be used, and what a variant continues from, its
checkpoints say: they may have been removed, or be further than the journal of a run that was
killed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import FINAL, Checkpoints, whole_of
from flambe.experiment.storage.manifest import MANIFEST, Manifest
from flambe.progress import VariantState


@dataclass(frozen=True)
class NewestCheckpoint:
    """The newest checkpoint of a variant.

    Attributes
    ----------
    manifest
        What it says of itself.
    is_settled
        Whether it is the only one, and has the name of one of a variant at its end.
    """

    manifest: Manifest
    is_settled: bool

    def completes(self, entry: VariantState) -> bool:
        """Whether the result of a variant is there as a whole.

        A run may have ended between the last checkpoint and the line that it was the last. And an
        older one may be kept, and whole, while the last is damaged.
        """
        done = entry.status.done and self.manifest.step >= entry.step
        return self.manifest.done or done


def newest_checkpoint(checkpoints: Checkpoints, folder: str) -> NewestCheckpoint | None:
    """Return the newest checkpoint in the folder of a variant; None without any that is whole."""
    survey = checkpoints.survey(folder)
    whole = whole_of(survey)
    selection = Retention().select(whole)
    if selection is None:
        return None
    is_settled = list(survey) == [f"{folder}/{FINAL}"]  # parts of others are to be removed
    return NewestCheckpoint(whole[selection.latest], is_settled)


@dataclass(frozen=True)
class SavedResult:
    """What is there of a result.

    Attributes
    ----------
    is_complete
        Whether it is there as a whole.
    has_begun
        Whether its variant could continue from a checkpoint.
    metric
        The figure that it ended with.
    """

    is_complete: bool = False
    has_begun: bool = False
    metric: float | None = None


class SavedResults(Protocol):
    """Tells what is there of the results of a journal."""

    def look_up(self, entry: VariantState, *, runs: bool, stage: str) -> SavedResult:
        """Return what is there of a result.

        Parameters
        ----------
        entry
            The result, as the journal has it.
        runs
            Whether its component is run, and so has checkpoints.
        stage
            The name of its stage today: a run that was killed may have moved it there already.
        """


class RecordedResults:
    """What the journal says, where checkpoints cannot be looked at."""

    def look_up(self, entry: VariantState, *, runs: bool, stage: str) -> SavedResult:
        """See :class:`SavedResults`."""
        return SavedResult(entry.status.done, bool(entry.step), entry.metric)


class StoredResults:
    """What is there on the disk of this host.

    Parameters
    ----------
    checkpoints
        The checkpoints of the run: they are only read.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def look_up(self, entry: VariantState, *, runs: bool, stage: str) -> SavedResult:
        """See :class:`SavedResults`."""
        newest = None
        for name in dict.fromkeys((entry.stage, stage)):
            newest = newest or newest_checkpoint(
                self.checkpoints, self.checkpoints.folder(name, entry.name)
            )
        if not runs:
            return SavedResult(entry.status.done, newest is not None, entry.metric)
        if newest is None:
            return SavedResult()
        return SavedResult(newest.completes(entry), has_begun=True, metric=newest.manifest.metric)


class ListedResults:
    """What is there by the names of files alone: in a bucket, or on the disk of another host.

    Parameters
    ----------
    paths
        The paths of the manifests of checkpoints, below the folder of the run.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._folders: dict[tuple[str, str], set[str]] = {}
        for path in paths:
            parts = posixpath.normpath(path).split("/")
            if len(parts) == 4 and parts[2].startswith(FINAL) and parts[3] == MANIFEST:
                self._folders.setdefault((parts[0], parts[1]), set()).add(parts[2])

    def look_up(self, entry: VariantState, *, runs: bool, stage: str) -> SavedResult:
        """See :class:`SavedResults`."""
        names = (entry.stage, stage)
        has_begun = any((name, entry.name) in self._folders for name in names)
        done = entry.status.done and (has_begun or not runs)
        return SavedResult(done, has_begun, entry.metric)
