"""A variant: its configuration, its figures, its log, its error, its files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request

from flambe.progress import VARIANT_CONFIG, VariantState
from flambe.report.downloads import listing
from flambe.report.site import Page, Site
from flambe.report.store import Store
from flambe.report.summary import whole_row


async def _data(site: Site, request: Request) -> dict[str, Any]:
    variant = (await site.row(request)).variant
    place = site.place(f"{variant.stage}/{variant.name}")
    config = await asyncio.to_thread(_text, site.place(f"{place}/{VARIANT_CONFIG}"))
    return {
        "variant": variant,
        "config": config,
        "parents": await site.read(_parents, variant),
        "files": await asyncio.to_thread(listing, site.store.folder.root.resolve(), place),
        "data": {"row": await site.read(lambda store: whole_row(store.rows[variant.id]))},
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _parents(store: Store, variant: VariantState) -> list[tuple[str, VariantState]]:
    return [
        (stage, store.rows[identity].variant)
        for stage, identity in variant.parents.items()
        if identity in store.rows
    ]


PAGE = Page("/variant/{id}", "variant.html", _data)
