"""A stage: its variants in a table, their curves, and what makes the difference between them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.store import Store
from flambe.report.summary import stage_summary, whole_row


async def _data(site: Site, request: Request) -> dict[str, Any]:
    name = await site.stage(request)
    data = await site.read(_stage, name)
    return {"stage": data["stage"], "data": data}


def _stage(store: Store, name: str) -> dict[str, Any]:
    rows = [whole_row(row) for row in store.of(name)]
    return {"stage": stage_summary(store, name), "rows": rows}


PAGE = Page("/stage/{stage}", "stage.html", _data)
