"""What can be taken home: everything, or logs only; of the run or a stage."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from flambe.report.downloads import size_of
from flambe.report.site import Page, Site


async def _data(site: Site, request: Request) -> dict[str, Any]:
    root = (await site.fresh()).folder.root
    run = site.store.run
    names = [stage.name for stage in run.stages if (root / stage.name).is_dir()] if run else []

    def sizes(folder: Any) -> tuple[int, int]:
        return size_of(folder, only_logs=False), size_of(folder, only_logs=True)

    rows = [("run", "", await asyncio.to_thread(sizes, root))]
    rows += [("stage", name, await asyncio.to_thread(sizes, root / name)) for name in names]
    return {"rows": rows, "data": {}}


PAGE = Page("/downloads", "downloads.html", _data, "Downloads")
