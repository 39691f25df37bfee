"""Handles of runs: their variants as tables, their best ones, and what these have saved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.compile.component import Component
from flambe.compile.persistence import load
from flambe.compile.reader.document import header
from flambe.errors import ConfigError, FlambeError, Problem, RunError, did_you_mean, listed
from flambe.experiment.interactive import run_html
from flambe.experiment.observer import short_path, variant_label
from flambe.progress import (
    METRICS,
    VARIANT_LOG,
    RunFolder,
    RunRecord,
    RunState,
    StageState,
    VariantState,
    figure_text,
    flat_rows,
    read_lines,
    run_folders,
)
from flambe.progress.records import FIRST_COLUMNS, LAST_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


class RunHandle:
    """A run: its state, its variants, and what they saved.

    Everything is read from the files of the run when it is asked for: of a run that is in progress,
    in this process or in another one, it is what has been recorded until then.

    Parameters
    ----------
    folder
        The output folder of the run.

    Raises
    ------
    ConfigError
        If it holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = RunFolder(Path(folder).absolute())
        if self._folder.read_state() is None:
            raise self._missing()

    def _read(self) -> RunRecord:
        record = RunRecord.read(self._folder)
        if record is None:
            raise self._missing()
        return record

    def _missing(self) -> ConfigError:
        hint = "flambe.runs(FOLDER) lists the runs in a folder"
        return ConfigError(Problem(f"no run in {self._folder.root}", hint=hint))

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self._folder.root

    @property
    def state(self) -> RunState:
        """The state, with ``status``, ``started``, ``ended``, ``stages`` and ``error``."""
        return self._read().run

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.state.name

    @property
    def status(self) -> str:
        """How it stands: ``running``, ``finished``, ``failed`` or ``interrupted``."""
        return self.state.status.value

    @property
    def variants(self) -> pd.DataFrame:
        """All variants, stage by stage, the best first.

        The columns: ``stage``, ``variant`` (the name of its folder), a column for each
        hyper-parameter (``params.steps``, where its name is that of another column), ``metric`` and
        ``best`` (its last and its best figure), ``steps``, ``time`` (in seconds), ``state``,
        ``kept`` (by ``reduce``), ``error``, and ``path`` (its folder).
        """
        return _frame(self._read())

    @property
    def stages(self) -> list[str]:
        """The names of the stages that have something to run."""
        return [stage.name for stage in self.state.stages if stage.runs]

    @property
    def config(self) -> str:
        """The configuration of the run, as it was given."""
        return self._folder.config.read_text(encoding="utf-8")

    def stage(self, name: str) -> StageHandle:
        """Return a stage.

        Raises
        ------
        ConfigError
            If the run has no such stage, or it has nothing to run.
        """
        _check_stage(self._read(), name)
        return StageHandle(self, name)

    def best(self, stage: str = "") -> VariantHandle:
        """Return the variant with the best figure.

        Parameters
        ----------
        stage
            Its stage; by default the last one that has figures.

        Raises
        ------
        ConfigError
            If the run has no such stage.
        RunError
            If no variant has finished with a figure.
        """
        record = self._read()
        if stage:
            _check_stage(record, stage)
        best = record.best(stage)
        if best is None:
            subject = f"stage {stage!r}" if stage else record.run.name
            raise RunError(f"no variant of {subject} has finished with a figure")
        return VariantHandle(self._folder, best, record.run.storage)

    def __iter__(self) -> Iterator[VariantHandle]:
        record = self._read()
        return (
            VariantHandle(self._folder, row.variant, record.run.storage) for row in record.rows()
        )

    def __repr__(self) -> str:
        run = self.state
        return f"<run {run.name}: {run.outcome}, {short_path(self.folder)}>"

    def _repr_html_(self) -> str:
        return run_html.run_html(self._read())


class StageHandle:
    """A stage of a run.

    Attributes
    ----------
    name
        Its name.
    """

    def __init__(self, run: RunHandle, name: str) -> None:
        self._run = run
        self.name = name

    @property
    def state(self) -> StageState:
        """The state, with ``status``, ``total``, ``counts``, ``started`` and ``ended``."""
        return self._run.state.stage(self.name)

    @property
    def variants(self) -> pd.DataFrame:
        """Its variants, the best first, with the columns of :attr:`RunHandle.variants`."""
        return _frame(self._run._read(), self.name)

    def best(self) -> VariantHandle:
        """Return the variant with the best figure; see :meth:`RunHandle.best`."""
        return self._run.best(self.name)

    def __iter__(self) -> Iterator[VariantHandle]:
        return (variant for variant in self._run if variant.stage == self.name)

    def __repr__(self) -> str:
        return f"<stage {self.name} of {self._run.name}: {self.state.status.value}>"

    def _repr_html_(self) -> str:
        return run_html.stage_html(self._run._read(), self.name)


class VariantHandle:
    """A variant of a run, as it was when it was asked for.

    Attributes
    ----------
    state
        All that is recorded of it: ``choices``, ``metric``, ``best``, ``step``, ``status``,
        ``error`` …
    """

    def __init__(self, folder: RunFolder, state: VariantState, storage: str = "") -> None:
        self._folder = folder
        self._storage = storage
        self.state = state

    @property
    def stage(self) -> str:
        """Its stage."""
        return self.state.stage

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.state.name

    @property
    def choices(self) -> dict[str, object]:
        """Its hyper-parameters."""
        return dict(self.state.choices)

    @property
    def metric(self) -> float | None:
        """Its last figure."""
        return self.state.metric

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder.variant(self.stage, self.name)

    @property
    def log(self) -> str:
        """What it printed and logged."""
        path = self.path / VARIANT_LOG
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def figures(self) -> pd.DataFrame:
        """The figures that it logged: ``tag``, ``step`` and ``value`` of each."""
        import pandas as pd

        columns = ["tag", "step", "value"]
        lines = [{c: line.get(c) for c in columns} for line in read_lines(self.path / METRICS)]
        return pd.DataFrame(lines, columns=columns)

    def load(self, *, trust: bool = False) -> Component:
        """Return its component, with the state that it ended with.

        Parameters
        ----------
        trust
            As in :func:`flambe.load`.

        Raises
        ------
        StateError
            If it has saved none, or its state does not fit the code of today.
        """
        root = self._storage or str(self._folder.root)
        path = self._folder.checkpoint(self.stage, self.name).relative_to(self._folder.root)
        component = load(f"{root}/{path}", extensions=self._extensions(), trust=trust)
        assert isinstance(component, Component)
        return component

    def _extensions(self) -> list[str]:
        """Return the extensions that the configuration of the run declares."""
        try:
            return sorted(header(self._folder.config))
        except FlambeError:  # the experiment was made in Python
            return []

    def __repr__(self) -> str:
        metric = f", metric {figure_text(self.metric)}" if self.metric is not None else ""
        return f"<{variant_label(self.state)}: {self.state.status.value}{metric}>"


def runs(folder: str | os.PathLike[str] = "flambe-output") -> list[RunHandle]:
    """Return the runs in a folder, the latest first; those that were moved aside, too.

    Parameters
    ----------
    folder
        A ``save_path``, or the output folder of a run.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    path = Path(folder)
    if not path.is_dir():
        hint = "give the save_path of experiments; the default is flambe-output"
        raise ConfigError(Problem(f"no such folder: {path}", hint=hint))
    folders = (each for each in run_folders(path) if each.read_state() is not None)
    return [RunHandle(each.root) for each in folders]


def _check_stage(record: RunRecord, name: str) -> None:
    names = [stage.name for stage in record.run.stages if stage.runs]
    if name not in names:
        hint = did_you_mean(name, names) or f"the stages: {listed(names)}"
        raise ConfigError(Problem(f"no stage {name!r} of this run has results", hint=hint))


def _frame(record: RunRecord, stage: str = "") -> pd.DataFrame:
    import pandas as pd

    rows = flat_rows(record.rows(stage))
    return pd.DataFrame(rows, columns=None if rows else [*FIRST_COLUMNS, *LAST_COLUMNS])
