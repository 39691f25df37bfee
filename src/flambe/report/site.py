"""The site of one run, shared by its pages: the run, the templates, TensorBoard."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

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
_P = ParamSpec("_P")

PERIOD = 0.5  # seconds between two reads of the files while a page is open

HERE = Path(str(files("flambe.report")))


class WaitForChange(Protocol):
    """Waits until the run has changed since a cursor, or for a number of seconds."""

    async def __call__(self, cursor: str, seconds: float) -> None:
        """Wait."""


class Site:
    """One run, as its pages see it.

    Parameters
    ----------
    root
        The folder of the run.
    navigation
        The pages that every page links to: address and title.
    """

    def __init__(self, root: Path, navigation: Sequence[tuple[str, str]] = ()) -> None:
        self.store = Store(root)
        self.navigation = navigation
        self.root = RunPath.of(self.store.folder.root)
        self.work = Work()
        self.searches = Work()
        self.tensorboard = TensorBoard(self.store.folder.root)
        self._watchers = 0
        self._watch: asyncio.Task[None] | None = None
        self._tick = asyncio.Event()

    async def read(
        self,
        function: Callable[Concatenate[Store, _P], _T],
        *arguments: _P.args,
        **options: _P.kwargs,
    ) -> _T:
        """Call a function with the present state of the run; return its result.

        It runs in a thread: large files and large runs do not block other requests.
        """

        def call(store: Store) -> _T:
            return function(store, *arguments, **options)

        return await asyncio.to_thread(lambda: self.store.read(call))

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[WaitForChange]:
        """Read the files regularly while a page is open; yield a function that waits."""
        self._watchers += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._refresh_regularly())
        try:
            yield self._wait_for_change
        finally:
            self._watchers -= 1
            if not self._watchers and self._watch is not None:
                self._watch.cancel()
                self._watch = None

    async def _refresh_regularly(self) -> None:
        while True:
            cursor = self.store.cursor
            with contextlib.suppress(OSError):  # the next attempt may succeed
                await asyncio.to_thread(self.store.refresh, now=True)
            if cursor != self.store.cursor:
                self._tick.set()
                self._tick = asyncio.Event()
            await asyncio.sleep(PERIOD)

    async def _wait_for_change(self, cursor: str, seconds: float) -> None:
        tick = self._tick
        if cursor == self.store.cursor:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(tick.wait(), seconds)

    async def row(self, request: Request) -> Row:
        """Return the variant that the URL names."""
        identity = str(request.path_params["id"])
        row: Row | None = await self.read(lambda store: store.rows.get(identity))
        if row is None:
            raise HTTPException(404, "There is no such variant in this run.")
        return row

    async def stage(self, request: Request) -> str:
        """Return the stage that the URL names."""
        name = str(request.path_params["stage"])
        run = await self.read(lambda store: store.run)
        if run is None or name not in {stage.name for stage in run.stages}:
            raise HTTPException(404, "There is no such stage in this run.")
        return name

    def file(self, name: str) -> RunPath:
        """Return a file or folder below the folder of the run.

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
        """The templates of the pages; they escape every value."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # Hyper-parameters keep the order of the configuration.
        environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
        environment.filters["option"] = _option
        environment.filters["python"] = repr
        return Jinja2Templates(env=environment)

    async def show(
        self,
        request: Request,
        template: str,
        data: PageData | None = None,
        *,
        status: int = 200,
        error_text: str = "",
    ) -> Response:
        """Return a page."""
        # The cursor is read before the data: a change may be sent twice, but none is missed.
        common = await self.read(_common)
        own = await data(self, request) if data else {"text": error_text}
        context = {
            **common,
            "now": round(time.time(), 1),  # the clock of this host; a browser's may differ
            "base": request.scope.get("root_path", ""),
            "pages": self.navigation,
            **own,
        }
        # In a thread: a table of thousands of rows takes a while.
        return await asyncio.to_thread(
            self.templates.TemplateResponse, request, template, context, status
        )


#: Returns what the template of a page needs besides what all pages have.
PageData = Callable[[Site, Request], Awaitable[Mapping[str, object]]]


def _option(value: object) -> str:
    """Return a hyper-parameter as text: 0.3 and not 0.30000000000000004."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _common(store: Store) -> dict[str, object]:
    return {"run": run_summary(store), "facts": run_facts(store), "cursor": store.cursor}


@dataclass(frozen=True)
class Page:
    """A page: its address, its template, and its data.

    Attributes
    ----------
    path
        Its address; ``{name}`` is a parameter.
    template
        Its template, below ``templates/``.
    data
        Returns what the template needs besides what all pages have; ``data`` in it is also
        available to the scripts of the page.
    title
        Its title in the navigation, if it is there.
    """

    path: str
    template: str
    data: PageData
    title: str = ""

    def route(self, site: Site, middleware: Sequence[Middleware]) -> Route:
        """Return its route."""

        async def answer(request: Request) -> Response:
            return await site.show(request, self.template, self.data)

        return Route(self.path, answer, middleware=middleware)
