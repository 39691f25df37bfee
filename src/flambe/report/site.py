"""What the pages of a site share: the run, its clock, the templates, TensorBoard."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from flambe.report.store import Row, Store
from flambe.report.summary import run_facts, run_summary
from flambe.report.tensorboard import TensorBoard

PERIOD = 0.5  # seconds between two looks at the files while somebody watches

HERE = Path(str(files("flambe.report")))


class Site:
    """One run, as its pages see it.

    Parameters
    ----------
    root
        The folder of the run.
    tensorboard
        The address of a TensorBoard that runs already; by default one is started when needed.
    """

    def __init__(self, root: Path, tensorboard: str | None = None) -> None:
        self.store = Store(root)
        self.tensorboard = TensorBoard(self.store.folder.root, tensorboard)
        self._watchers = 0
        self._watch: asyncio.Task[None] | None = None
        self._tick = asyncio.Event()

    async def fresh(self) -> Store:
        """Return the run as it is now."""
        await asyncio.to_thread(self.store.refresh)
        return self.store

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Callable[[float], Any]]:
        """Look at the files for as long as somebody watches; give a way to wait for news."""
        self._watchers += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._look())
        try:
            yield self._changed
        finally:
            self._watchers -= 1
            if not self._watchers and self._watch is not None:
                self._watch.cancel()
                self._watch = None

    async def _look(self) -> None:
        while True:
            known = (self.store.epoch, self.store.look)
            await asyncio.to_thread(self.store.refresh, now=True)
            if known != (self.store.epoch, self.store.look):
                self._tick.set()
                self._tick = asyncio.Event()
            await asyncio.sleep(PERIOD)

    async def _changed(self, seconds: float) -> None:
        """Return when something is new, or after so many seconds."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._tick.wait(), seconds)

    async def row(self, request: Request) -> Row:
        """Return the variant that the address names."""
        store = await self.fresh()
        row = store.rows.get(request.path_params["id"])
        if row is None:
            raise HTTPException(404, "There is no such variant in this run.")
        return row

    async def stage(self, request: Request) -> str:
        """Return the stage that the address names."""
        store = await self.fresh()
        name = str(request.path_params["stage"])
        if store.run is None or name not in {stage.name for stage in store.run.stages}:
            raise HTTPException(404, "There is no such stage in this run.")
        return name

    # -- pages --------------------------------------------------------------------------------

    @cached_property
    def templates(self) -> Jinja2Templates:
        """The templates of the pages; what they show is escaped."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # Hyper-parameters stand in the order of the configuration.
        environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
        return Jinja2Templates(env=environment)

    async def show(
        self, request: Request, template: str, status: int = 200, **data: Any
    ) -> Response:
        """Return a page."""
        store = await self.fresh()
        common = {
            "run": run_summary(store),
            "facts": run_facts(store),
            "cursor": f"{store.epoch}-{store.look}",
            "base": request.scope.get("root_path", ""),
            "now": time.time(),
            "pages": NAVIGATION,
        }
        return self.templates.TemplateResponse(request, template, {**common, **data}, status)


#: The pages that every page leads to: address and title.
NAVIGATION: list[tuple[str, str]] = []


@dataclass(frozen=True)
class Page:
    """A page: where it is, its template, and what it shows.

    Attributes
    ----------
    path
        Its address; ``{name}`` stands for a part.
    template
        Its template, below ``templates/``.
    data
        Returns what the template needs besides what all pages have: ``data`` is also given to the
        scripts of the page.
    title
        What other pages call it, if all of them lead to it.
    """

    path: str
    template: str
    data: Callable[[Site, Request], Any]
    title: str = ""

    def route(self, site: Site) -> Route:
        """Return the route to it."""

        async def answer(request: Request) -> Response:
            return await site.show(request, self.template, **await self.data(site, request))

        return Route(self.path, answer)
