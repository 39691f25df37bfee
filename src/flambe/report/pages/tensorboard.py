"""TensorBoard within the site, filtered by a stage or a variant if the URL names one."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.tensorboard import PREFIX


async def _data(site: Site, request: Request) -> dict[str, object]:
    stage, identity = request.query_params.get("stage", ""), request.query_params.get("variant", "")
    row = await site.read(lambda store: store.rows.get(identity))
    folder = f"{row.variant.stage}/{row.variant.name}" if row else stage
    # TensorBoard names runs after their folders, and its filter is a regular expression.
    query = f"?{urlencode({'runFilter': f'^{re.escape(folder)}/'})}" if folder else ""
    return {
        "address": f"{PREFIX}/{query}#timeseries",
        "folder": folder,
        "stage_name": stage,
        "variant": row.variant if row else None,
        "data": {},
    }


PAGE = Page("/tensorboard", "tensorboard.html", _data, "TensorBoard")
