"""The run at a glance: how far it is, which variant wins, what failed and why."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.summary import hosts, run_summary


async def _data(site: Site, request: Request) -> dict[str, Any]:
    return {
        "data": await site.read(lambda store: {"run": run_summary(store), "hosts": hosts(store)})
    }


PAGE = Page("/", "overview.html", _data, "Overview")
