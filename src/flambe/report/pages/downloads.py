"""Downloads: everything, or logs only, of the run or a stage."""

from __future__ import annotations

from starlette.requests import Request

from flambe.report.downloads import sizes
from flambe.report.files import RunPath
from flambe.report.site import Page, Site


async def _data(site: Site, request: Request) -> dict[str, object]:
    run = await site.read(lambda store: store.run)
    folders = [("run", "", site.root)]
    for stage in run.stages if run else ():
        if folder := site.root.below(stage.name):
            folders.append(("stage", stage.name, folder))
    rows = await site.work.run(request.scope, "sizes", _sizes, folders)
    return {"rows": rows, "storage": run.storage if run else "", "data": {}}


def _sizes(folders: list[tuple[str, str, RunPath]]) -> list[tuple[str, str, tuple[int, int]]]:
    return [(kind, name, sizes(folder)) for kind, name, folder in folders if folder.path.is_dir()]


PAGE = Page("/downloads", "downloads.html", _data, "Downloads")
