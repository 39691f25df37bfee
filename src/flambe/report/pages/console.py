"""The live log: of the run, a stage or a variant."""

from __future__ import annotations

from starlette.requests import Request

from flambe.report.site import Page, Site


async def _data(site: Site, request: Request) -> dict[str, object]:
    identity = request.query_params.get("variant", "")
    row = await site.read(lambda store: store.rows.get(identity))
    filters = {name: request.query_params.get(name, "") for name in ("stage", "level", "search")}
    return {
        "variant": row.variant if row else None,
        "data": {**filters, "variant": row.variant.id if row else ""},
    }


PAGE = Page("/console", "console.html", _data, "Console")
