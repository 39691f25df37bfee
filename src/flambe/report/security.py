"""Access to the site: only with its token, and only from pages of its own address.

The token is part of the URL that is printed, and is kept in a cookie from then on. Requests under
host names that are not the site's are refused (DNS rebinding), and so are requests that other sites
make in a browser.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import socket
from collections.abc import Iterable
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; frame-src 'self'; frame-ancestors 'self'; "
    "base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

#: A key in the state of requests that have the token; the server limits all others.
HAS_TOKEN = "flambe.has_token"


def new_token() -> str:
    """Return a new token: 256 random bits."""
    return secrets.token_urlsafe(32)


class Guard:
    """Middleware that requires the token, and adds security headers.

    Parameters
    ----------
    app
        The guarded application.
    token
        The token.
    hosts
        Host names of this site besides those of the machine. An IP address is always accepted:
        DNS rebinding needs a name.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str] = ()) -> None:
        self.app = app
        self.token = token
        name = socket.gethostname()
        self.hosts = {"localhost", name.lower(), *(host.lower() for host in hosts)}
        # Sites on other ports of a host get the same cookies.
        self.cookie = "flambe_" + hashlib.sha256(token.encode()).hexdigest()[:12]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", POLICY)
                # Nothing of a run is cached; static files are revalidated.
                keep = "no-cache" if "/static/" in scope["path"] else "no-store"
                headers.setdefault("cache-control", keep)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        if refused := self._refused(headers):
            await _answer(careful, scope, 403, refused)
        elif token := self._token_in_url(scope):
            await self._enter(scope, token, careful)
        elif self._has_token(headers):
            scope.setdefault("state", {})[HAS_TOKEN] = True
            await self.app(scope, receive, careful)
        else:
            text = "Open the address that flambe printed: it holds the token of this site."
            await _answer(careful, scope, 401, text)

    def _refused(self, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return f"This site is not known as {host!r}; use its address or --host."
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) != host:
            return "This request was made by another site."
        if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            return "This request was made by another site."
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.hosts
        return True

    def _token_in_url(self, scope: Scope) -> str:
        if scope["method"] != "GET":
            return ""
        query: str = scope["query_string"].decode("latin-1")
        return dict(parse_qsl(query)).get("token", "")

    def _same(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self.token.encode())

    def _has_token(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._same(token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except Exception:  # a cookie of another site that is malformed
            return False
        return cookie is not None and self._same(cookie.value)

    async def _enter(self, scope: Scope, token: str, send: Send) -> None:
        """Move the token from the URL to a cookie."""
        if not self._same(token):
            await _answer(send, scope, 403, "This token is not the one of this site.")
            return
        scope.setdefault("state", {})[HAS_TOKEN] = True
        query = scope["query_string"].decode("latin-1")
        rest = urlencode([pair for pair in parse_qsl(query) if pair[0] != "token"])
        # Browsers read two slashes of either kind as the start of a host name.
        path = "/" + scope["raw_path"].decode("latin-1").lstrip("/\\")
        # Lax, not strict, so that a link in a chat works. No GET changes anything here.
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Lax; Path=/"
        if scope["scheme"] == "https":
            cookie += "; Secure"
        location = f"{path}?{rest}" if rest else path
        headers = [(b"location", location.encode()), (b"set-cookie", cookie.encode())]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _answer(send: Send, scope: Scope, status: int, text: str) -> None:
    """Send an error, as JSON or as a page."""
    if "/api/" in scope["path"]:
        kind, body = b"application/json", json.dumps({"error": text})
    else:
        kind, body = b"text/html; charset=utf-8", _PAGE.format(text=_escaped(text))
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", kind)],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body.encode()})


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))


_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>flambe</title>"
    "<meta name=viewport content='width=device-width'><meta name=color-scheme content='light dark'>"
    "<h1>flambe</h1><p>{text}</p></html>"
)
