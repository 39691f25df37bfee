"""A searcher that goes on where an earlier run was cut off."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.variant_generator import parse_spec_vars

from flambe.experiment.search.engines import METRIC
from flambe.experiment.search.stage_search import EvaluatedPoint, SearcherOptions


class Informed(ConcurrencyLimiter):  # type: ignore[misc]
    """A searcher that is told what was tried before, and tries none of it again.

    One that draws from a seed suggests the same values in the next run: these are answered with
    what is known, which takes it to where it was.
    """

    def __init__(self, searcher: Any, options: SearcherOptions) -> None:
        super().__init__(searcher, max_concurrent=options.max_concurrent or 1)
        self.earlier = options.evaluated
        self.asked_as: dict[str, str] = {}

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """Take the spaces, and tell the searcher of earlier points, if it can be told."""
        known: bool = super().set_search_properties(metric, mode, config, **spec)
        names = {"/".join(path) for path, _ in parse_spec_vars(config)[1]}
        for tried in self.earlier:
            values = {f"values/{path}": value for path, value in tried.values.items()}
            values["variant"] = tried.base
            point = {name: values[name] for name in names if name in values}
            with contextlib.suppress(NotImplementedError):
                self.add_evaluated_point(point, tried.metric, error=tried.metric is None)
        return known

    def suggest(self, trial_id: str) -> Any:
        """Suggest what was not tried; see :class:`ray.tune.search.Searcher`."""
        for attempt in range(len(self.earlier) + 1):
            # A searcher takes one result for each id that it was asked with.
            self.asked_as[trial_id] = asked = f"{trial_id}_{attempt}"
            found = super().suggest(asked)
            tried = self._tried(found) if isinstance(found, Mapping) else None
            if tried is None:
                break
            failed = tried.metric is None
            super().on_trial_complete(asked, None if failed else {METRIC: tried.metric}, failed)
        return found

    def _tried(self, found: Mapping[str, Any]) -> EvaluatedPoint | None:
        for tried in self.earlier:
            if found.get("values") == tried.values and found.get("variant") == tried.base:
                return tried
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Give it on under the id that the searcher knows."""
        super().on_trial_result(self.asked_as[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Give it on under the id that the searcher knows."""
        super().on_trial_complete(self.asked_as[trial_id], result, error)
