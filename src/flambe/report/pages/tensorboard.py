"""TensorBoard within the site, showing a stage or a variant where that is asked for."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from flambe.report.site import Page, Site
from flambe.report.tensorboard import PREFIX


async def _data(site: Site, request: Request) -> dict[str, Any]:
    stage, identity = request.query_params.get("stage", ""), request.query_params.get("variant", "")
    row = await site.read(lambda store: store.rows.get(identity))
    folder = f"{row.variant.stage}/{row.variant.name}" if row else stage
    # TensorBoard knows runs by their folders, and its filter is a regular expression.
    query = f"?{urlencode({'runFilter': f'^{re.escape(folder)}/'})}" if folder else ""
    return {
        "address": f"{PREFIX}/{query}#timeseries",
        "folder": folder,
        "stage_name": stage,
        "variant": row.variant if row else None,
        "data": {},
    }


PAGE = Page("/tensorboard", "tensorboard.html", _data, "TensorBoard")
