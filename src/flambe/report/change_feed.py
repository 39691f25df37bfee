"""What a page does not know yet: the changes since its last update."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from flambe.report.payloads import Changes, ListChanges, RowFields
from flambe.report.store import Row, Store
from flambe.report.summary import changed_row, host_summaries, run_summary, stage_summary


class ChangeFeed:
    """The changes for one page.

    Parameters
    ----------
    scope
        What the page shows: a ``stage``, a ``variant``, or else the run.
    cursor
        The last state that the page has: ``<epoch>-<revision>`` of the store.
    """

    def __init__(self, scope: Mapping[str, str], cursor: str) -> None:
        self.scope = scope
        self.epoch, _, number = cursor.partition("-")
        self.revision = int(number) if number.isdecimal() and len(number) < 19 else 0
        self._sent: dict[tuple[str, ...], str] = {}

    @property
    def cursor(self) -> str:
        """The state that the page has after the latest changes."""
        return f"{self.epoch}-{self.revision}"

    def changes(self, store: Store) -> Changes | None:
        """Return what changed since the last call, or None if the page must start over.

        Returns
        -------
        Changes
            ``rows``: variants with their changed fields; ``run``: the changed fields of the run;
            ``stages``, ``failures`` and ``hosts``: the ``items`` that changed, and ``keys``, all
            keys in order, if that changed.
        """
        if self.epoch != store.epoch:
            return None
        changes: Changes = {}
        if rows := self._changed_rows(store):
            changes["rows"] = rows
        summary = run_summary(store)
        run: dict[str, object] = {"status": summary["status"], "lost": summary["lost"]}
        if "stage" in self.scope and "variant" not in self.scope:
            stage = stage_summary(store, self.scope["stage"])
            if stages := self._changed_items("stages", "name", [stage] if stage else []):
                changes["stages"] = stages
        elif "variant" not in self.scope:
            run = {k: v for k, v in summary.items() if k not in ("stages", "failures")}
            if stages := self._changed_items("stages", "name", summary["stages"]):
                changes["stages"] = stages
            if failures := self._changed_items("failures", "id", summary["failures"]):
                changes["failures"] = failures
            if hosts := self._changed_items("hosts", "host", host_summaries(store)):
                changes["hosts"] = hosts
        if changed := self._changed_fields(("run",), run):
            changes["run"] = changed
        self.revision = store.revision
        return changes

    def _changed_rows(self, store: Store) -> list[RowFields]:
        changed = (changed_row(row, self.revision) for row in self._rows(store))
        return [fields for fields in changed if fields is not None]

    def _rows(self, store: Store) -> Iterable[Row]:
        if "stage" in self.scope:
            return store.of(self.scope["stage"])
        row = store.rows.get(self.scope.get("variant", ""))
        return [row] if row else []

    def _changed_fields(
        self, path: tuple[str, ...], fields: Mapping[str, object]
    ) -> dict[str, object]:
        """Return the fields that differ from what was sent before."""
        changed = {}
        for name, value in fields.items():
            text = json.dumps(value)
            if self._sent.get((*path, name)) != text:
                self._sent[(*path, name)] = text
                changed[name] = value
        return changed

    def _changed_items(
        self, name: str, key: str, items: Sequence[Mapping[str, object]]
    ) -> ListChanges:
        """Return what changed in a list; empty, if nothing did."""
        changes: ListChanges = {}
        keys = [item[key] for item in items]
        if self._changed_fields((), {name: keys}):
            changes["keys"] = keys
        changed = [
            {key: item[key], **fields}
            for item in items
            if (fields := self._changed_fields((name, str(item[key])), item))
        ]
        if changed:
            changes["items"] = changed
        return changes
