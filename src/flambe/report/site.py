"""What the pages of a site share: the run, its clock, the templates, TensorBoard."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from flambe.report.files import RunPath
from flambe.report.limits import Work
from flambe.report.store import Row, Store
from flambe.report.summary import run_facts, run_summary
from flambe.report.tensorboard import TensorBoard

_T = TypeVar("_T")

PERIOD = 0.5  # seconds between two looks at the files while somebody watches

HERE = Path(str(files("flambe.report")))


class Site:
    """One run, as its pages see it.

    Parameters
    ----------
    root
        The folder of the run.
    """

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.root = RunPath.of(self.store.folder.root)
        self.work = Work()
        self.searches = Work()
        self.tensorboard = TensorBoard(self.store.folder.root)
        self._watchers = 0
        self._watch: asyncio.Task[None] | None = None
        self._tick = asyncio.Event()

    async def read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Return what a function makes of the run as it is now.

        It runs in a thread: nothing waits for large files, or for what is made of large runs.
        """
        return await asyncio.to_thread(self.store.read, function, *arguments)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Callable[[tuple[str, int], float], Any]]:
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
            known = self._place
            with contextlib.suppress(OSError):  # the next look may find it readable
                await asyncio.to_thread(self.store.refresh, now=True)
            if known != self._place:
                self._tick.set()
                self._tick = asyncio.Event()
            await asyncio.sleep(PERIOD)

    @property
    def _place(self) -> tuple[str, int]:
        return self.store.epoch, self.store.look

    async def _changed(self, known: tuple[str, int], seconds: float) -> None:
        """Return when something is newer than what is known, or after so many seconds."""
        tick = self._tick
        if known == self._place:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(tick.wait(), seconds)

    async def row(self, request: Request) -> Row:
        """Return the variant that the address names."""
        identity = request.path_params["id"]
        row: Row | None = await self.read(lambda store: store.rows.get(identity))
        if row is None:
            raise HTTPException(404, "There is no such variant in this run.")
        return row

    async def stage(self, request: Request) -> str:
        """Return the stage that the address names."""
        name = str(request.path_params["stage"])
        run = await self.read(lambda store: store.run)
        if run is None or name not in {stage.name for stage in run.stages}:
            raise HTTPException(404, "There is no such stage in this run.")
        return name

    def file(self, name: str) -> RunPath:
        """Return a file or folder below the folder of the run, whatever else its name tries.

        Raises
        ------
        HTTPException
            404 if it leads out of the folder.
        """
        path = self.root.below(name)
        if path is None:
            raise HTTPException(404, "There is no such file in this run.")
        return path

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
        environment.filters["option"] = _option
        environment.filters["python"] = repr
        return Jinja2Templates(env=environment)

    async def show(
        self,
        request: Request,
        template: str,
        data: Callable[[Site, Request], Any] | None = None,
        *,
        status: int = 200,
        **more: Any,
    ) -> Response:
        """Return a page."""
        # What a page is told to know is read first: it may be told again, and misses nothing.
        common = await self.read(_common)
        own = await data(self, request) if data else {}
        base = request.scope.get("root_path", "")
        clock = {"now": round(time.time(), 1)}  # of this host: that of a browser may be another
        shown = {**common, **clock, "base": base, "pages": NAVIGATION, **own, **more}
        # A table of thousands of rows takes a while: meanwhile others are answered.
        return await asyncio.to_thread(
            self.templates.TemplateResponse, request, template, shown, status
        )


def _option(value: Any) -> str:
    """Return a hyper-parameter as people read it: 0.3 and not 0.30000000000000004."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _common(store: Store) -> dict[str, Any]:
    return {
        "run": run_summary(store),
        "facts": run_facts(store),
        "cursor": f"{store.epoch}-{store.look}",
    }


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

    def route(self, site: Site, middleware: Sequence[Middleware]) -> Route:
        """Return the route to it."""

        async def answer(request: Request) -> Response:
            return await site.show(request, self.template, self.data)

        return Route(self.path, answer, middleware=middleware)
