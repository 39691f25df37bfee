"""A variant: its configuration, its figures, its log, its error, its files."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request

from flambe.progress import VARIANT_CONFIG
from flambe.report.downloads import listing
from flambe.report.site import Page, Site
from flambe.report.summary import whole_row


async def _data(site: Site, request: Request) -> dict[str, Any]:
    row = await site.row(request)
    variant, folder = row.variant, site.store.folder
    place = folder.variant(variant.stage, variant.name)
    try:
        config = (place / VARIANT_CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        config = ""
    parents = [
        (stage, site.store.rows[identity].variant)
        for stage, identity in variant.parents.items()
        if identity in site.store.rows
    ]
    files = await asyncio.to_thread(listing, folder.root, place)
    return {
        "variant": variant,
        "config": config,
        "parents": parents,
        "files": files,
        "data": {"row": whole_row(row)},
    }


PAGE = Page("/variant/{id}", "variant.html", _data)
