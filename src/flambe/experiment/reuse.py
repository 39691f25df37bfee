"""What an earlier run left that a resumed one builds upon."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flambe.compile.state import is_number
from flambe.errors import ConfigError, Problem, did_you_mean
from flambe.experiment.checkpoints import FINAL, RESUMED, Checkpoints
from flambe.experiment.executor import Tried
from flambe.experiment.variants import Variant
from flambe.progress import RunFolder, Status, VariantState, end_last_line

if TYPE_CHECKING:
    from flambe.experiment.journal import Journal
    from flambe.experiment.run import Run
    from flambe.experiment.search import Search


class Reuse:
    """The results of an earlier run in the same folder, found by the ids of variants.

    Parameters
    ----------
    folder
        The folder of the run.
    checkpoints
        Its checkpoints.
    pipeline
        The stages.
    resume
        As :class:`Experiment` takes it.

    Raises
    ------
    ConfigError
        If it names a stage that there is not.
    """

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: Checkpoints,
        pipeline: Mapping[str, Any],
        resume: bool | str | Sequence[str],
    ) -> None:
        self.folder = folder
        self.kept = checkpoints
        if resume:
            end_last_line(folder.variants)
        self.earlier: dict[str, VariantState] = folder.read_variants() if resume else {}
        named: Sequence[str] = ()
        if not isinstance(resume, bool):
            named = [resume] if isinstance(resume, str) else resume
        names = list(pipeline)
        if unknown := [
            Problem(f"resume: there is no stage {name!r}", hint=did_you_mean(name, names))
            for name in named
            if name not in names
        ]:
            raise ConfigError(unknown)
        last = max((names.index(name) for name in named), default=-1) if named else -1
        #: Stages whose saved results are used as they are.
        self.saved = set(names[: last + 1])
        if named:
            self._set_aside(names[last + 1 :])

    def _set_aside(self, stages: Sequence[str]) -> None:
        """Move what later stages left out of the way; they are run anew."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for stage in stages:
            place = self.folder.root / stage
            if place.exists():
                aside = self.folder.root / "earlier" / stamp
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(place, aside / stage)
            if self.kept.root != str(self.folder.root):
                self.kept.move(
                    f"{self.kept.root}/{stage}", f"{self.kept.root}/earlier/{stamp}/{stage}"
                )
        self.earlier = {k: v for k, v in self.earlier.items() if v.stage not in stages}

    def _complete(self, variant: Variant) -> VariantState | None:
        entry = self.earlier.get(variant.id)
        if entry is None or not variant.runs:
            return entry if entry is not None and entry.status.done else None
        place = self.kept.folder(variant.stage, entry.name)
        latest = self.kept.latest(place)
        manifest = self.kept.manifest(latest) if latest is not None else None
        # The run may have ended between the last checkpoint and the note that it was the last.
        if manifest is None or not (entry.status.done or manifest["done"]):
            return None
        self.kept.settle(place, FINAL)
        entry.step, entry.metric, entry.best = (manifest[k] for k in ("step", "metric", "best"))
        return entry

    def adopt(self, journal: Journal, variant: Variant) -> VariantState | None:
        """Note a variant as done if an earlier run finished it.

        Raises
        ------
        ConfigError
            If its stage was named to be used as saved, and it was not finished.
        """
        entry = self._complete(variant)
        if entry is not None:
            return journal.add(
                variant,
                status=Status.REUSED,
                metric=entry.metric,
                best=entry.best,
                step=entry.step,
                started=entry.started,
                ended=entry.ended,
                host=entry.host,
            )
        if variant.stage in self.saved and variant.runs:
            raise ConfigError(
                Problem(
                    f"resume: {variant.stage}/{variant.name} has no saved result",
                    hint="resume from an earlier stage, or with --resume alone, "
                    "which runs what is missing",
                )
            )
        return None

    def adopt_searched(
        self, journal: Journal, search: Search, stage: str, bases: list[Variant], run: Run
    ) -> list[Variant]:
        """Take over what a search tried before; return what is to be run.

        Unfinished ones are finished first; the searcher is told of the others, and tries the rest.
        """
        again: list[Variant] = []
        by_id = {base.id: base for base in bases}
        for entry in self.earlier.values():
            base = by_id.get(entry.base)
            if entry.stage != stage or base is None or entry.status is Status.FAILED:
                continue
            variant = run.expander.suggest(base, entry.values)
            if variant.id != entry.id:
                continue  # the configuration has changed since
            run.variants[stage].append(variant)
            if self.adopt(journal, variant) is None:
                journal.add(variant)
                again.append(variant)
            elif is_number(entry.metric):
                search.earlier.append(Tried(base.id, entry.values, float(entry.metric or 0.0)))
        search.num_samples -= len(run.variants[stage])
        return again + (bases if search.num_samples > 0 else [])

    def checkpoints(self, journal: Journal, variants: Sequence[Variant]) -> dict[str, str]:
        """Return the checkpoints that unfinished variants go on from, by id; note how far they are.

        What was best may have been before the checkpoint.
        """
        found = {}
        for variant in variants:
            place = self.kept.folder(variant.stage, variant.name)
            if variant.id in self.earlier and (kept := self.kept.settle(place, RESUMED)):
                found[variant.id] = kept
                manifest = self.kept.manifest(kept)
                if manifest is not None and variant.id in journal.variants:
                    known = {name: manifest[name] for name in ("step", "metric", "best")}
                    journal.change(variant.id, **known)
        return found
