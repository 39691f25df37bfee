"""What the scripts of the pages ask for: JSON, and news as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flambe.progress import METRICS, VARIANT_LOG
from flambe.report import downloads, logs, metrics
from flambe.report.change_feed import News
from flambe.report.files import RunPath
from flambe.report.importance import importance
from flambe.report.limits import ALL_STREAMS, STREAMS, Limit, Limited
from flambe.report.site import Site
from flambe.report.summary import measured, run_summary

WAIT = 10.0  # seconds after which news are looked for though nothing was noticed


class Api:
    """The requests that scripts make of one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._importance: dict[str, tuple[Any, dict[str, Any]]] = {}
        self._estimating = asyncio.Lock()

    def routes(self, answers: Sequence[Middleware]) -> list[Route]:
        """Return the routes; ``answers`` is around all that are answered at once."""
        streams = [Middleware(Limited, limit=Limit("streams", STREAMS, total=ALL_STREAMS))]
        return [
            Route("/api/run", self.run, middleware=answers),
            Route("/api/live", self.live, middleware=streams),
            Route("/api/stage/{stage}/curves", self.curves, middleware=answers),
            Route("/api/stage/{stage}/importance", self.importance, middleware=answers),
            Route("/api/variant/{id}/figures", self.figures, middleware=answers),
            Route("/api/log", self.log, middleware=answers),
            Route("/api/log/live", self.log_live, middleware=streams),
            Route("/files/{path:path}", self.file, middleware=streams),
            Route("/download/run", self.download_run, middleware=streams),
            Route("/download/stage/{stage}", self.download_stage, middleware=streams),
            Route("/download/variant/{id}", self.download_variant, middleware=streams),
        ]

    # -- the run ------------------------------------------------------------------------------

    async def run(self, request: Request) -> Response:
        """Return the summary of the run, for other programs."""
        return JSONResponse(await self.site.read(run_summary))

    async def live(self, request: Request) -> Response:
        """Send what is new of the run, and of a ``stage`` or a ``variant`` since what a page knows.

        A page that lost its connection tells by ``Last-Event-ID`` what it knows.
        """
        known = request.headers.get("last-event-id") or request.query_params.get("since", "")
        news = News(dict(request.query_params), known)

        async def events() -> AsyncIterator[ServerSentEvent]:
            async with self.site.watching() as changed:
                while True:
                    update = await self.site.read(news.since)
                    if update is None:
                        yield ServerSentEvent("{}", event="anew")
                        return
                    if update:
                        text = json.dumps(update, separators=(",", ":"))
                        yield ServerSentEvent(text, event="news", id=news.known)
                    await changed((news.epoch, news.look), WAIT)

        return EventSourceResponse(events(), ping=15)

    async def curves(self, request: Request) -> Response:
        """Return the metric of all variants of a stage, or another figure: ``tag``."""
        stage = await self.site.stage(request)
        arguments = (self.site.root, stage, request.query_params.get("tag", ""))
        return await self._made(request, metrics.stage_curves, self.site.store, *arguments)

    async def figures(self, request: Request) -> Response:
        """Return all figures of a variant."""
        variant = (await self.site.row(request)).variant
        path = self.site.file(f"{variant.stage}/{variant.name}/{METRICS}")
        return await self._made(request, metrics.thinned, path)

    async def _made(
        self, request: Request, function: Callable[..., str], *arguments: Any
    ) -> Response:
        """Return the JSON that takes long to make."""
        key = (function, arguments)
        text = await self.site.work.run(request.scope, key, function, *arguments)
        return Response(text, media_type="application/json")

    async def importance(self, request: Request) -> Response:
        """Return how much each hyper-parameter of a stage matters, as it stands now."""
        stage = await self.site.stage(request)
        choices, figures = await self.site.read(measured, stage)
        state = (self.site.store.epoch, len(figures), sum(figures))
        async with self._estimating:
            if stage not in self._importance or self._importance[stage][0] != state:
                self._importance[stage] = (state, await importance(choices, figures))
        return JSONResponse(self._importance[stage][1])

    # -- logs ---------------------------------------------------------------------------------

    async def _log_of(self, request: Request) -> tuple[RunPath, logs.Wanted]:
        asked = request.query_params
        wanted = logs.Wanted(asked.get("search", ""), asked.get("level", ""))
        identity = asked.get("variant", "")
        if not identity:
            wanted = replace(wanted, stage=asked.get("stage", ""), sources=True)
            return self.site.file(self.site.store.folder.log.name), wanted
        row = await self.site.read(lambda store: store.rows.get(identity))
        if row is None:
            raise HTTPException(404, "There is no such variant in this run.")
        return self.site.file(f"{row.variant.stage}/{row.variant.name}/{VARIANT_LOG}"), wanted

    async def log(self, request: Request) -> Response:
        """Return the last lines of a log before a place: ``before``."""
        path, wanted = await self._log_of(request)
        place = _place(request.query_params.get("before", ""))
        arguments = (path, place, wanted)
        found = await self.site.searches.run(request.scope, arguments, logs.before, *arguments)
        return JSONResponse(found)

    async def log_live(self, request: Request) -> Response:
        """Send the lines of a log after a place, as they come: ``after``."""
        path, wanted = await self._log_of(request)
        start = request.headers.get("last-event-id") or request.query_params.get("after", "")
        at = _place(start) or 0

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
        path = self.site.file(request.path_params["path"])
        return await asyncio.to_thread(downloads.one_file, path)

    async def download_run(self, request: Request) -> Response:
        """Return all files of the run, or its logs only: ``what=logs``."""
        name = self.site.store.folder.root.name
        return await self._archive(request, self.site.root, name)

    async def download_stage(self, request: Request) -> Response:
        """Return the files of a stage."""
        stage = await self.site.stage(request)
        return await self._archive(request, self.site.file(stage), stage)

    async def download_variant(self, request: Request) -> Response:
        """Return the files of a variant."""
        variant = (await self.site.row(request)).variant
        folder = self.site.file(f"{variant.stage}/{variant.name}")
        return await self._archive(request, folder, f"{variant.stage}-{variant.name}")

    async def _archive(self, request: Request, folder: RunPath, name: str) -> Response:
        only_logs = request.query_params.get("what") == "logs"
        return await asyncio.to_thread(downloads.archive, folder, name, only_logs=only_logs)


def _place(text: str) -> int | None:
    """Return a place in a file, as an address names it."""
    return int(text) if text.isdecimal() and len(text) < 19 else None
