"""The API for the scripts of the pages: JSON, and changes as server-sent events."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from dataclasses import replace
from typing import ParamSpec

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flambe.progress import METRICS, VARIANT_LOG
from flambe.report import downloads, logs, metrics
from flambe.report.change_feed import ChangeFeed
from flambe.report.files import RunPath
from flambe.report.importance import importance
from flambe.report.limits import ALL_STREAMS, STREAMS, Limit, Limited
from flambe.report.payloads import Importance
from flambe.report.site import Site
from flambe.report.summary import measured, run_summary

WAIT = 10.0  # seconds after which changes are computed even if no file has changed

_P = ParamSpec("_P")


class Api:
    """The requests that scripts send to one site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._importance: dict[str, tuple[object, Importance]] = {}
        self._estimating = asyncio.Lock()

    def routes(self, answers: Sequence[Middleware]) -> list[Route]:
        """Return the routes; ``answers`` is the middleware of all but streams and downloads."""
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
        """Send the changes of the run, of a ``stage`` or of a ``variant`` since a cursor.

        A page that lost its connection sends its cursor as ``Last-Event-ID``.
        """
        cursor = request.headers.get("last-event-id") or request.query_params.get("since", "")
        feed = ChangeFeed(dict(request.query_params), cursor)

        async def events() -> AsyncIterator[ServerSentEvent]:
            async with self.site.watching() as wait_for_change:
                while True:
                    changes = await self.site.read(feed.changes)
                    if changes is None:
                        yield ServerSentEvent("{}", event="anew")
                        return
                    if changes:
                        text = json.dumps(changes, separators=(",", ":"))
                        yield ServerSentEvent(text, event="news", id=feed.cursor)
                    await wait_for_change(feed.cursor, WAIT)

        return EventSourceResponse(events(), ping=15)

    async def curves(self, request: Request) -> Response:
        """Return the metric of all variants of a stage, or another figure: ``tag``."""
        stage = await self.site.stage(request)
        tag = request.query_params.get("tag", "")
        key = ("curves", stage, tag)
        site = self.site
        return await self._computed(
            request, key, metrics.stage_curves, site.store, site.root, stage, tag
        )

    async def figures(self, request: Request) -> Response:
        """Return all figures of a variant."""
        variant = (await self.site.row(request)).variant
        path = self.site.file(f"{variant.stage}/{variant.name}/{METRICS}")
        return await self._computed(request, ("figures", path), metrics.thinned, path)

    async def _computed(
        self,
        request: Request,
        key: Hashable,
        function: Callable[_P, str],
        *arguments: _P.args,
        **options: _P.kwargs,
    ) -> Response:
        """Return JSON that takes long to compute; equal requests share it."""
        compute = functools.partial(function, *arguments, **options)
        text = await self.site.work.run(request.scope, key, compute)
        return Response(text, media_type="application/json")

    async def importance(self, request: Request) -> Response:
        """Return how much each hyper-parameter of a stage matters at present."""
        stage = await self.site.stage(request)
        choices, figures = await self.site.read(measured, stage)
        state = (self.site.store.epoch, len(figures), sum(figures))
        async with self._estimating:
            if stage not in self._importance or self._importance[stage][0] != state:
                self._importance[stage] = (state, await importance(choices, figures))
        return JSONResponse(self._importance[stage][1])

    # -- logs ---------------------------------------------------------------------------------

    async def _log_of(self, request: Request) -> tuple[RunPath, logs.LineFilter]:
        query = request.query_params
        line_filter = logs.LineFilter(query.get("search", ""), query.get("level", ""))
        identity = query.get("variant", "")
        if not identity:
            line_filter = replace(line_filter, stage=query.get("stage", ""), sources=True)
            return self.site.file(self.site.store.folder.log.name), line_filter
        row = await self.site.read(lambda store: store.rows.get(identity))
        if row is None:
            raise HTTPException(404, "There is no such variant in this run.")
        log = self.site.file(f"{row.variant.stage}/{row.variant.name}/{VARIANT_LOG}")
        return log, line_filter

    async def log(self, request: Request) -> Response:
        """Return the last lines of a log before a position: ``before``."""
        path, line_filter = await self._log_of(request)
        end = _position(request.query_params.get("before", ""))
        search = functools.partial(logs.before, path, end, line_filter)
        key = (path, end, line_filter)
        return JSONResponse(await self.site.searches.run(request.scope, key, search))

    async def log_live(self, request: Request) -> Response:
        """Send the lines of a log after a position, as they are written: ``after``."""
        path, line_filter = await self._log_of(request)
        start = request.headers.get("last-event-id") or request.query_params.get("after", "")
        at = _position(start) or 0

        async def events() -> AsyncIterator[ServerSentEvent]:
            nonlocal at
            while True:
                tail = await asyncio.to_thread(logs.after, path, at, line_filter)
                at = tail["at"]
                if tail["lines"] or tail.get("restarted") or tail.get("skipped"):
                    text = json.dumps(tail, separators=(",", ":"))
                    yield ServerSentEvent(text, event="lines", id=str(at))
                await asyncio.sleep(0.5)

        return EventSourceResponse(events(), ping=15)

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


def _position(text: str) -> int | None:
    """Return a position in a file, given in a URL."""
    return int(text) if text.isdecimal() and len(text) < 19 else None
