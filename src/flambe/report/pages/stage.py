"""A stage: its variants in a table, their curves, and what makes the difference between them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.summary import run_summary, whole_row


async def _data(site: Site, request: Request) -> dict[str, Any]:
    name = await site.stage(request)
    rows = [whole_row(row) for row in site.store.of(name)]
    stage = next(stage for stage in run_summary(site.store)["stages"] if stage["name"] == name)
    return {"stage": stage, "data": {"stage": stage, "rows": rows}}


PAGE = Page("/stage/{stage}", "stage.html", _data)
