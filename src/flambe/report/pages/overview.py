"""The run at a glance: its progress, its best variant, and what failed and why."""

from __future__ import annotations

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.summary import host_summaries, run_summary


async def _data(site: Site, request: Request) -> dict[str, object]:
    return {
        "data": await site.read(
            lambda store: {"run": run_summary(store), "hosts": host_summaries(store)}
        )
    }


PAGE = Page("/", "overview.html", _data, "Overview")
