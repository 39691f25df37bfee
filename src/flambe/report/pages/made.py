"""How a run was made: its command, configuration, code, machine and packages, for each start."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time

from starlette.requests import Request

from flambe.progress import Invocation, Repository, read_invocations
from flambe.report.site import Page, Site
from flambe.report.store import Store

MOST_LINES = 4000  # of a diff


async def _data(site: Site, request: Request) -> dict[str, object]:
    starts = await asyncio.to_thread(read_invocations, site.store.folder.invocations)
    selected = request.query_params.get("start", "")
    start = next((each for each in starts if each.id == selected), starts[-1] if starts else None)
    return {
        "starts": [(number, each) for number, each in enumerate(starts, 1)],
        "start": start,
        "command": shlex.join(start.command) if start else "",
        "diffs": [_diff_lines(each) for each in start.repositories] if start else [],
        "resolved": _resolved(start) if start else "",
        "when": _utc(start.at) if start else "",
        "hosts": await site.read(_hosts),
        "data": {},
    }


def _diff_lines(repository: Repository) -> list[tuple[str, str]]:
    """Return the lines of a diff, each with its kind."""
    lines = repository.diff.splitlines()[:MOST_LINES]
    return [(_kind(line), line) for line in lines]


def _kind(line: str) -> str:
    if line.startswith(("diff --git", "index ", "--- ", "+++ ", "new file", "deleted file")):
        return "file"
    return {"+": "added", "-": "removed", "@": "hunk"}.get(line[:1], "")


def _utc(seconds: float | None) -> str:
    """Return a time where scripts do not run: they show that of the browser's zone."""
    with contextlib.suppress(ValueError, OverflowError, OSError, TypeError):
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    return ""


def _resolved(start: Invocation) -> str:
    """Return the configuration as it was resolved, if that is not what was written."""
    return "" if start.resolved.strip() == start.config.strip() else start.resolved


def _hosts(store: Store) -> list[tuple[str, dict[str, object]]]:
    return list(store.run.hosts.items()) if store.run else []


PAGE = Page("/made", "made.html", _data, "How it was made")
