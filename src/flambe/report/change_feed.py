"""What a page does not know yet: only what changed since it was told last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flambe.report.store import Row, Store
from flambe.report.summary import changed_row, hosts, run_summary, stage_summary


class News:
    """The news for one page.

    Parameters
    ----------
    scope
        What the page shows: a ``stage``, a ``variant``, or else the run.
    known
        What the page knows: ``<epoch>-<look>`` of the store.
    """

    def __init__(self, scope: Mapping[str, str], known: str) -> None:
        self.scope = scope
        self.epoch, _, number = known.partition("-")
        self.look = int(number) if number.isdecimal() and len(number) < 19 else 0
        self._said: dict[tuple[str, ...], str] = {}

    @property
    def known(self) -> str:
        """What the page knows when it was told."""
        return f"{self.epoch}-{self.look}"

    def since(self, store: Store) -> dict[str, Any] | None:
        """Return what is new, or None where what the page shows is not true any more.

        Returns
        -------
        dict
            ``rows``: variants with what changed of them; ``run``: what changed of the run;
            ``stages``, ``failures`` and ``hosts``: of each ``items``, those that changed, and
            ``keys``, all of them in order, where that changed.
        """
        if self.epoch != store.epoch:
            return None
        found: dict[str, Any] = {}
        if rows := [new for row in self._rows(store) if (new := changed_row(row, self.look))]:
            found["rows"] = rows
        run, lists = self._shown(store)
        if changed := self._changed(("run",), run):
            found["run"] = changed
        for name, (key, items) in lists.items():
            if told := self._listed(name, key, items):
                found[name] = told
        self.look = store.look
        return found

    def _rows(self, store: Store) -> Iterable[Row]:
        if "stage" in self.scope:
            return store.of(self.scope["stage"])
        row = store.rows.get(self.scope.get("variant", ""))
        return [row] if row else []

    def _shown(self, store: Store) -> tuple[dict[str, Any], dict[str, tuple[str, list[Any]]]]:
        run = run_summary(store)
        if "variant" in self.scope:
            return {name: run[name] for name in ("status", "lost")}, {}
        if "stage" in self.scope:
            stage = stage_summary(store, self.scope["stage"])
            return {name: run[name] for name in ("status", "lost")}, {
                "stages": ("name", [stage] if stage else [])
            }
        lists = {
            "stages": ("name", run.pop("stages")),
            "failures": ("id", run.pop("failures")),
            "hosts": ("host", hosts(store)),
        }
        return run, lists

    def _changed(self, place: tuple[str, ...], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that differ from what was said before."""
        changed = {}
        for name, value in values.items():
            text = json.dumps(value)
            if self._said.get((*place, name)) != text:
                self._said[(*place, name)] = text
                changed[name] = value
        return changed

    def _listed(self, name: str, key: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        told: dict[str, Any] = {}
        keys = [item[key] for item in items]
        if self._changed((), {name: keys}):
            told["keys"] = keys
        changed = [
            {key: item[key], **new}
            for item in items
            if (new := self._changed((name, item[key]), item))
        ]
        if changed:
            told["items"] = changed
        return told
