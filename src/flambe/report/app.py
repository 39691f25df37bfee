"""The site of one run, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

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
from flambe.report.site import HERE, NAVIGATION, Page, Site
from flambe.report.tensorboard import PREFIX, TensorBoardPort


def create_app(
    run_dir: str | Path,
    *,
    token: str | None = None,
    hosts: Iterable[str] = (),
    tensorboard_port: int | None = None,
) -> Starlette:
    """Return the site of a run, to be served or mounted.

    Parameters
    ----------
    run_dir
        The folder of the run: ``<save_path>/output__<name>``. It may not be there yet.
    token
        What lets people in; a new one by default: ``app.state.token``.
    hosts
        The names under which the site is reached, besides localhost and the name of this machine.
    tensorboard_port
        Start TensorBoard at once, and lead to it whoever comes in at this port of the server; by
        default TensorBoard is started when somebody looks.
    """
    token = token or new_token()
    site = Site(Path(run_dir))

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
        return await site.show(request, "error.html", status=status, text=text)

    # What is sent to be kept is sent as it is, and TensorBoard packs for itself.
    packed = [Middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)]
    fair = [Middleware(Limited, limit=Limit("requests", REQUESTS, WAITING)), *packed]
    app = Starlette(
        routes=[
            *(page.route(site, fair) for page in found_pages()),
            *Api(site).routes(fair),
            Route(f"{PREFIX}/{{path:path}}", site.tensorboard.proxy, methods=["GET", "POST"]),
            # TensorBoard asks for its fonts without its prefix.
            Route("/font-roboto/{path:path}", site.tensorboard.proxy),
            Mount("/static", StaticFiles(directory=HERE / "static"), middleware=packed),
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


def found_pages() -> list[Page]:
    """Return the pages: each is a module of ``pages/`` with a ``PAGE``, and a template."""
    modules: list[Any] = [
        importlib.import_module(f"{pages.__name__}.{found.name}")
        for found in pkgutil.iter_modules(pages.__path__)
    ]
    result = [module.PAGE for module in modules]
    result.sort(key=lambda page: page.path != "/")
    NAVIGATION[:] = [(page.path, page.title) for page in result if page.title]
    return result
