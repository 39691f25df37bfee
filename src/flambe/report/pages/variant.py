"""A variant: its configuration, its figures, its log, its error, its files."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from flambe.progress import VARIANT_CONFIG, VariantState
from flambe.report.downloads import listing
from flambe.report.files import RunPath, printable
from flambe.report.site import Page, Site
from flambe.report.store import Store
from flambe.report.summary import whole_row

MOST_SHOWN = 1 << 20  # bytes of a configuration


async def _data(site: Site, request: Request) -> dict[str, object]:
    variant = (await site.row(request)).variant
    folder = site.file(f"{variant.stage}/{variant.name}")
    row = await site.read(lambda store: whole_row(store.rows[variant.id]))
    config = await asyncio.to_thread(_text, site.file(f"{folder.name}/{VARIANT_CONFIG}"))
    return {
        "variant": variant,
        "config": config,
        "checkpoint": await asyncio.to_thread(_checkpoint, site, variant),
        "parents": await site.read(_parents, variant),
        "files": await asyncio.to_thread(listing, folder),
        "data": {"row": {**row, "error": variant.error}},
    }


def _text(path: RunPath) -> str:
    return path.read(MOST_SHOWN).decode("utf-8", "replace")


def _checkpoint(site: Site, variant: VariantState) -> str:
    """Return the path of the final state of a variant; empty if there is none."""
    # A journal may hold any path: only paths below the folder of the run are read.
    below = f"{variant.stage}/{variant.name}/checkpoint/checkpoint.flambe"
    if site.store.run is not None and site.store.run.storage:
        # Another storage is not read: a variant that is done and has steps has written one.
        is_written = variant.status.done and variant.step > 0
        return f"{site.store.run.storage}/{below}" if is_written else ""
    folder = site.root.below(below)
    if folder is None or not folder.path.is_dir():
        return ""
    return printable(str(site.store.folder.checkpoint(variant.stage, variant.name)))


def _parents(store: Store, variant: VariantState) -> list[tuple[str, VariantState]]:
    return [
        (stage, store.rows[identity].variant)
        for stage, identity in variant.parents.items()
        if identity in store.rows
    ]


PAGE = Page("/variant/{id}", "variant.html", _data)
