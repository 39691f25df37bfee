"""What the scripts of the pages ask for: JSON, and news as server-sent events."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flambe.progress import VARIANT_LOG
from flambe.report import downloads, logs, metrics
from flambe.report.importance import importance
from flambe.report.site import Site
from flambe.report.summary import changed_row, curves, hosts, run_summary

WAIT = 10.0  # seconds after which news are looked for though nothing was noticed


class Api:
    """The requests that scripts make of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._importance: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._estimating = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/run", self.run),
            Route("/api/live", self.live),
            Route("/api/stage/{stage}/curves", self.curves),
            Route("/api/stage/{stage}/importance", self.importance),
            Route("/api/variant/{id}/figures", self.figures),
            Route("/api/log", self.log),
            Route("/api/log/live", self.log_live),
            Route("/files/{path:path}", self.file),
            Route("/download/run", self.download_run),
            Route("/download/stage/{stage}", self.download_stage),
            Route("/download/variant/{id}", self.download_variant),
        ]

    # -- the run ------------------------------------------------------------------------------

    async def run(self, request: Request) -> Response:
        """Return the summary of the run, for other programs."""
        return JSONResponse(run_summary(await self.site.fresh()))

    async def live(self, request: Request) -> Response:
        """Send what is new of the run, and of a ``stage`` or a ``variant`` since what a page knows.

        A page that lost its connection tells by ``Last-Event-ID`` what it knows.
        """
        known = request.headers.get("last-event-id") or request.query_params.get("since", "")
        scope = dict(request.query_params)

        async def news() -> AsyncIterator[ServerSentEvent]:
            epoch, _, number = known.partition("-")
            look = int(number) if number.isdecimal() else 0
            said = ""
            async with self.site.watching() as changed:
                store = await self.site.fresh()
                while True:
                    if epoch != store.epoch:
                        yield ServerSentEvent("{}", event="anew")
                        return
                    update, summary = self._news(scope, look), json.dumps(run_summary(store))
                    if summary != said:
                        update["run"] = json.loads(summary)
                        update["hosts"] = hosts(store)
                        said = summary
                    if update:
                        look = store.look
                        text = json.dumps(update, separators=(",", ":"))
                        yield ServerSentEvent(text, event="news", id=f"{store.epoch}-{look}")
                    await changed(WAIT)

        return EventSourceResponse(news(), ping=15)

    def _news(self, scope: dict[str, str], look: int) -> dict[str, Any]:
        store = self.site.store
        if "stage" in scope:
            rows = list(store.of(scope["stage"]))
        elif "variant" in scope:
            rows = [row for row in [store.rows.get(scope["variant"])] if row]
        else:
            return {}
        changes = [change for row in rows if (change := changed_row(row, look))]
        return {"rows": changes} if changes else {}

    async def curves(self, request: Request) -> Response:
        """Return the metric of all variants of a stage, or another figure: ``tag``."""
        stage = await self.site.stage(request)
        store, tag = self.site.store, request.query_params.get("tag")
        tags = await asyncio.to_thread(metrics.tags, store, stage)
        if tag:
            found = await asyncio.to_thread(metrics.stage_figures, store, stage, tag)
        else:
            found = curves(list(store.of(stage)))
        return JSONResponse({"curves": found, "tags": tags})

    async def figures(self, request: Request) -> Response:
        """Return all figures of a variant."""
        row = await self.site.row(request)
        found = await asyncio.to_thread(metrics.variant_figures, self.site.store, row)
        return JSONResponse({"figures": found})

    async def importance(self, request: Request) -> Response:
        """Return how much each hyper-parameter of a stage matters, as it stands now."""
        stage = await self.site.stage(request)
        measured = [
            row.variant
            for row in self.site.store.of(stage)
            if isinstance(row.variant.best, int | float) and math.isfinite(row.variant.best)
        ]
        choices = [variant.choices for variant in measured]
        figures = [float(variant.best or 0.0) for variant in measured]
        state = (self.site.store.epoch, len(figures), sum(figures))
        async with self._estimating:
            if stage not in self._importance or self._importance[stage][0] != state:
                self._importance[stage] = (state, await importance(choices, figures))
        return JSONResponse(self._importance[stage][1])

    # -- logs ---------------------------------------------------------------------------------

    async def _log_of(self, request: Request) -> tuple[Any, logs.Wanted]:
        asked, store = request.query_params, await self.site.fresh()
        wanted = logs.Wanted(
            asked.get("search", ""), asked.get("level", ""), asked.get("stage", ""), True
        )
        if not asked.get("variant"):
            return store.folder.log, wanted
        row = store.rows.get(asked["variant"])
        if row is None:
            raise HTTPException(404, "There is no such variant in this run.")
        path = store.folder.variant(row.variant.stage, row.variant.name) / VARIANT_LOG
        return path, logs.Wanted(wanted.search, wanted.level, "", False)

    async def log(self, request: Request) -> Response:
        """Return the last lines of a log before a place: ``before``."""
        path, wanted = await self._log_of(request)
        end = request.query_params.get("before", "")
        place = int(end) if end.isdecimal() else None
        return JSONResponse(await asyncio.to_thread(logs.before, path, place, wanted))

    async def log_live(self, request: Request) -> Response:
        """Send the lines of a log after a place, as they come: ``after``."""
        path, wanted = await self._log_of(request)
        start = request.headers.get("last-event-id") or request.query_params.get("after", "0")
        at = int(start) if start.isdecimal() else 0

        async def news() -> AsyncIterator[ServerSentEvent]:
            nonlocal at
            while True:
                found = await asyncio.to_thread(logs.after, path, at, wanted)
                at = found["at"]
                if found["lines"] or found.get("restarted") or found.get("skipped"):
                    text = json.dumps(found, separators=(",", ":"))
                    yield ServerSentEvent(text, event="lines", id=str(at))
                await asyncio.sleep(0.5)

        return EventSourceResponse(news(), ping=15)

    # -- files --------------------------------------------------------------------------------

    async def file(self, request: Request) -> Response:
        """Return a file of the run."""
        root = self.site.store.folder.root
        return await asyncio.to_thread(downloads.one_file, root, request.path_params["path"])

    async def download_run(self, request: Request) -> Response:
        """Return all files of the run, or its logs only: ``what=logs``."""
        folder = self.site.store.folder.root
        return await self._archive(request, folder, folder.name)

    async def download_stage(self, request: Request) -> Response:
        """Return the files of a stage."""
        stage = await self.site.stage(request)
        return await self._archive(request, self.site.store.folder.root / stage, stage)

    async def download_variant(self, request: Request) -> Response:
        """Return the files of a variant."""
        variant = (await self.site.row(request)).variant
        folder = self.site.store.folder.variant(variant.stage, variant.name)
        return await self._archive(request, folder, f"{variant.stage}-{variant.name}")

    async def _archive(self, request: Request, folder: Any, name: str) -> Response:
        only_logs = request.query_params.get("what") == "logs"
        return await asyncio.to_thread(downloads.archive, folder, name, only_logs=only_logs)
