"""A stage: its variants in a table, their curves, and the importance of hyper-parameters."""

from __future__ import annotations

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.store import Store
from flambe.report.summary import stage_summary, whole_row


async def _data(site: Site, request: Request) -> dict[str, object]:
    name = await site.stage(request)
    data = await site.read(_stage_data, name)
    return {"stage": data["stage"], "data": data}


def _stage_data(store: Store, name: str) -> dict[str, object]:
    rows = [whole_row(row) for row in store.of(name)]
    return {"stage": stage_summary(store, name), "rows": rows}


PAGE = Page("/stage/{stage}", "stage.html", _data)
