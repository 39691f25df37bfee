"""Searchers and schedulers: one that writes down what it is told, and some of their own mind."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from . import note


class Recording(OptunaSearch):  # type: ignore[misc]
    """Optuna's, with a record of what was evaluated before it began."""

    def __init__(self, record: str, seed: int) -> None:
        super().__init__(seed=seed)
        self.record = record

    def add_evaluated_point(self, parameters: dict[str, Any], value: float, *more: Any) -> None:
        super().add_evaluated_point(parameters, value, *more)
        note(self.record, f"told {sorted(parameters)} {value:.6f}")

    def suggest(self, trial_id: str) -> Any:
        known = len([trial for trial in self._ot_study.trials if trial.state.is_finished()])
        found = super().suggest(trial_id)
        note(self.record, f"suggests, knowing {known}")
        return found


class States(OptunaSearch):  # type: ignore[misc]
    """Optuna's, with a record of what became of each point."""

    def __init__(self, record: str, metric: str | None = None, mode: str | None = None) -> None:
        super().__init__(seed=1, metric=metric, mode=mode)
        self.record = record

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        super().on_trial_complete(trial_id, result, error)
        trial = self._ot_study.trials[-1]
        note(self.record, f"{trial.state.name} {trial.params['values/walk[x]']:.6f} {trial.value}")


class Forwarding(OptunaSearch):  # type: ignore[misc]
    """Takes any arguments by position."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments


class LowestFirst(ASHAScheduler):  # type: ignore[misc]
    """Has its own idea of what is better."""

    def __init__(self) -> None:
        super().__init__(metric="metric", mode="min")


class OfEpochs(ASHAScheduler):  # type: ignore[misc]
    """Waits for what no variant reports."""

    def __init__(self) -> None:
        super().__init__(time_attr="epoch")
