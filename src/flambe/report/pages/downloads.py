"""What can be taken home: everything, or logs only; of the run or a stage."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request

from flambe.report.downloads import inside, size_of
from flambe.report.site import Page, Site


async def _data(site: Site, request: Request) -> dict[str, Any]:
    run = await site.read(lambda store: store.run)
    rows = [("run", "", await asyncio.to_thread(_sizes, site.store.folder.root))]
    for stage in run.stages if run else ():
        if (place := inside(site.store.folder.root, stage.name)) and place.is_dir():
            rows.append(("stage", stage.name, await asyncio.to_thread(_sizes, place)))
    return {"rows": rows, "storage": run.storage if run else "", "data": {}}


def _sizes(folder: Path) -> tuple[int, int]:
    return size_of(folder, only_logs=False), size_of(folder, only_logs=True)


PAGE = Page("/downloads", "downloads.html", _data, "Downloads")
