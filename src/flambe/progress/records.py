"""What a run left, for tables: its variants as rows, its best variant, and the runs in a folder.

The command, exports and :mod:`flambe.experiment.interactive` show the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambe.progress.clock import steady_time
from flambe.progress.figures import is_number, ranked
from flambe.progress.folder import RunFolder
from flambe.progress.liveness import interrupt, is_alive
from flambe.progress.seeds import group_seeds, ranked_groups
from flambe.progress.state import RunState, Status, VariantState

#: The columns of a table before and after the hyper-parameters.
FIRST_COLUMNS = ("stage", "variant")
LAST_COLUMNS = ("metric", "best", "steps", "time", "state", "kept", "error", "path")


@dataclass(frozen=True)
class VariantRow:
    """A variant as a row of a table.

    Attributes
    ----------
    variant
        All that is recorded of it.
    path
        Its folder.
    seconds
        How long it has run; None if it did not.
    """

    variant: VariantState
    path: Path
    seconds: float | None

    def values(self) -> dict[str, object]:
        """Return the value of each column but the hyper-parameters."""
        variant = self.variant
        return {
            "stage": variant.stage,
            "variant": variant.name,
            "metric": variant.metric,
            "best": variant.best,
            "steps": variant.step,
            "time": self.seconds,
            "state": variant.status.value,
            "kept": variant.kept,
            "error": variant.error,
            "path": str(self.path),
        }


@dataclass
class RunRecord:
    """A run, as its files have it.

    Attributes
    ----------
    folder
        Where its files are.
    run
        Its state; of a run that was killed, interrupted.
    variants
        Its variants by id, in the order in which they were first named.
    """

    folder: RunFolder
    run: RunState
    variants: Mapping[str, VariantState]

    @classmethod
    def read(cls, folder: RunFolder) -> RunRecord | None:
        """Read a run; None if there is none, or its state cannot be read."""
        run = folder.read_state()
        if run is None:
            return None
        variants = folder.read_variants()
        if not is_alive(run):
            interrupt(run)
            for variant in variants.values():
                if variant.status is Status.RUNNING:
                    variant.status = Status.INTERRUPTED
        return cls(folder, run, variants)

    def of(self, stage: str = "") -> list[VariantState]:
        """Return the variants of a stage, or of all that run, in the order of the pipeline."""
        names = [each.name for each in self.run.stages if each.runs and stage in ("", each.name)]
        return [v for name in names for v in self.variants.values() if v.stage == name]

    def rows(self, stage: str = "") -> list[VariantRow]:
        """Return the variants as rows: stage by stage, the best first."""
        variants = self.of(stage)
        rows = []
        for name in dict.fromkeys(variant.stage for variant in variants):
            own = [variant for variant in variants if variant.stage == name]
            for variant in ranked(own, lambda each: each.metric):
                path = self.folder.variant(name, variant.name)
                rows.append(VariantRow(variant, path, self._seconds(variant)))
        return rows

    def _seconds(self, variant: VariantState) -> float | None:
        if variant.started is None:
            return None
        return max(0.0, (variant.ended or self.run.ended or steady_time()) - variant.started)

    def best(self, stage: str = "") -> VariantState | None:
        """Return the best variant: of a stage, or of the last one that has a metric."""
        return best_variant(self.run, list(self.variants.values()), stage)


def best_variant(
    run: RunState, variants: Sequence[VariantState], stage_name: str = ""
) -> VariantState | None:
    """Return the best variant: of a stage, or of the last one that has a metric."""
    for stage in reversed(run.stages):
        done = [v for v in variants if v.stage == stage.name and v.status.done]
        measured = [variant for variant in done if is_number(variant.metric)]
        if stage.runs and measured and stage_name in ("", stage.name):
            # The state that is loaded has the last metric, not the best one on the way.
            best = ranked_groups(group_seeds(measured))[0]  # under several seeds, by the mean
            return ranked(best.variants, lambda variant: variant.metric)[0]
    return None


def flat_rows(rows: Iterable[VariantRow]) -> list[dict[str, object]]:
    """Return rows with a value for every column, their hyper-parameters in columns of their own.

    A hyper-parameter that is called like another column has ``params.`` in front: ``params.steps``.
    """
    rows = list(rows)
    parameters = dict.fromkeys(name for row in rows for name in row.variant.choices)
    taken = {*FIRST_COLUMNS, *LAST_COLUMNS}
    columns = {name: f"params.{name}" if name in taken else name for name in parameters}
    flat = []
    for row in rows:
        values, choices = row.values(), row.variant.choices
        flat.append(
            {
                **{name: values[name] for name in FIRST_COLUMNS},
                **{column: choices.get(name) for name, column in columns.items()},
                **{name: values[name] for name in LAST_COLUMNS},
            }
        )
    return flat


def run_folders(path: Path) -> list[RunFolder]:
    """Return the runs in a folder, the latest first; of the folder of a run, that run.

    Results that were moved aside are runs like others.
    """
    if _holds_run(own := RunFolder(path)):
        return [own]
    folders = [folder for each in path.glob("output__*") if _holds_run(folder := RunFolder(each))]
    return sorted(folders, key=_written, reverse=True)


def _holds_run(folder: RunFolder) -> bool:
    return folder.state.is_file() or folder.previous_state.is_file()


def _written(folder: RunFolder) -> float:
    """Return when the state of a run was last written."""
    times = [p.stat().st_mtime for p in (folder.state, folder.previous_state) if p.is_file()]
    return max(times, default=0.0)
