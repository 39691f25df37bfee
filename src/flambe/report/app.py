"""The site of one run, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flambe.report import pages
from flambe.report.api import Api
from flambe.report.limits import REQUESTS, WAITING, Limit, Limited
from flambe.report.security import Guard, new_token
from flambe.report.site import HERE, Page, Site
from flambe.report.tensorboard import PREFIX, TensorBoardPort


def create_app(
    run_dir: str | Path,
    *,
    token: str | None = None,
    hosts: Iterable[str] = (),
    tensorboard_port: int | None = None,
) -> Starlette:
    """Return the site of a run, for a server or to be mounted in another application.

    Parameters
    ----------
    run_dir
        The folder of the run: ``<save_path>/output__<name>``. It may not exist yet.
    token
        The access token; by default a new one: ``app.state.token``.
    hosts
        Host names of the site, besides localhost and the name of this machine.
    tensorboard_port
        Start TensorBoard immediately, and serve it at this port of the server too; by default it
        starts when its page is opened.
    """
    token = token or new_token()
    site_pages = load_pages()
    navigation = [(page.path, page.title) for page in site_pages if page.title]
    site = Site(Path(run_dir), navigation)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        keeping = asyncio.create_task(site.tensorboard.keep()) if tensorboard_port else None
        yield
        if keeping is not None:
            keeping.cancel()
        await site.tensorboard.close()

    async def failed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = str(getattr(error, "detail", "")) or "Something went wrong here."
        if "/api/" in request.url.path:
            return JSONResponse({"error": text}, status)
        return await site.show(request, "error.html", status=status, error_text=text)

    # Downloads are not compressed, and TensorBoard compresses its own answers.
    compressed = [Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)]
    fair = [Middleware(Limited, limit=Limit("requests", REQUESTS, WAITING)), *compressed]
    app = Starlette(
        routes=[
            *(page.route(site, fair) for page in site_pages),
            *Api(site).routes(fair),
            Route(f"{PREFIX}/{{path:path}}", site.tensorboard.proxy, methods=["GET", "POST"]),
            # TensorBoard requests its fonts without its prefix.
            Route("/font-roboto/{path:path}", site.tensorboard.proxy),
            Mount("/static", StaticFiles(directory=HERE / "static"), middleware=compressed),
        ],
        middleware=[
            Middleware(Guard, token=token, hosts=tuple(hosts)),
            Middleware(TensorBoardPort, port=tensorboard_port),
        ],
        exception_handlers={HTTPException: failed},
        lifespan=lifespan,
    )
    app.state.token = token
    app.state.site = site
    return app


def load_pages() -> list[Page]:
    """Return the pages: each is a module of ``pages/`` with a ``PAGE``, and a template."""
    modules = [
        importlib.import_module(f"{pages.__name__}.{module.name}")
        for module in pkgutil.iter_modules(pages.__path__)
    ]
    loaded: list[Page] = [module.PAGE for module in modules]
    return sorted(loaded, key=lambda page: page.path != "/")
