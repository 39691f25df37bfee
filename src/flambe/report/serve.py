"""Serving a site: its address, its port, its certificate."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambe.errors import ConfigError, Problem
from flambe.report.parent import end_with

PORT = 49558
LOOPBACK = "127.0.0.1"
PORT_ERRORS = (errno.EADDRINUSE, errno.EACCES)


@dataclass(frozen=True)
class Address:
    """The address of a site.

    Attributes
    ----------
    host
        The host name or IP address that it listens on.
    port
        The port.
    token
        The access token.
    secure
        Whether it uses TLS.
    """

    host: str
    port: int
    token: str
    secure: bool = False

    @property
    def url(self) -> str:
        """The URL to open."""
        anywhere = self.host in ("0.0.0.0", "::", "")
        name = socket.gethostname() if anywhere else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http{'s' if self.secure else ''}://{name}:{self.port}/?token={self.token}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def listen(host: str, port: int | None, option: str = "--port") -> socket.socket:
    """Return a listening socket; without a port, the default port or else any.

    ``option`` is the option that an error suggests to change.

    Raises
    ------
    ConfigError
        If the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in [PORT, 0] if port is None else [port]:
        # asyncio sets TCP_NODELAY only if the protocol is given.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
        except (OSError, OverflowError) as error:
            listener.close()
            if port is None and candidate:
                continue
            reason = getattr(error, "strerror", None) or str(error)
            of_port = isinstance(error, OverflowError) or error.errno in PORT_ERRORS
            hint = (
                f"choose another {option}, or leave it out" if of_port else "choose another --host"
            )
            text = f"the site cannot listen on {host}:{candidate}: {reason.lower()}"
            raise ConfigError(Problem(text, hint=hint)) from None
        listener.listen(128)
        return listener
    raise AssertionError("unreachable")


def serve(
    run_dir: Path,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    token: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    tensorboard_port: int | None = None,
    names: Sequence[str] = (),
    parent: int | None = None,
    on_ready: Callable[[Address], None] = lambda address: None,
) -> None:
    """Serve the site of a run until it is interrupted.

    Parameters
    ----------
    run_dir
        The folder of the run.
    host, port
        Where to listen; the default port is 49558, or any if that is taken.
    token
        The access token; by default a new one.
    certificate, key
        PEM files of a certificate and its key, to use TLS.
    tensorboard_port
        Start TensorBoard immediately, and serve it at this port of the loopback too, with the same
        token; by default it starts when its page is opened.
    names
        Other host names of the site, if it listens on all addresses.
    parent
        The process that started this one; the site exits with it.
    on_ready
        Called with the address as soon as the site is listening.

    Raises
    ------
    ConfigError
        If the port is taken, or the certificate cannot be read.
    """
    import uvicorn

    from flambe.report.app import create_app
    from flambe.report.connections import BACKLOG, bounded_protocol, connection_bound

    if parent is not None:
        end_with(parent)
    app = create_app(run_dir, token=token, hosts=[host, *names], tensorboard_port=tensorboard_port)
    protocol = bounded_protocol(connection_bound())
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        backlog=BACKLOG,
        # Any client can send X-Forwarded-For: the address of the connection counts.
        proxy_headers=False,
        log_level=logging.CRITICAL,
        access_log=False,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        timeout_graceful_shutdown=1,
    )
    if certificate is not None:
        _check(config, certificate)
        # The protocol does the handshake, not the server, so that unfinished ones are counted.
        protocol.tls, config.ssl = config.ssl, None
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(host, port))
        sockets = [listener]
        if tensorboard_port is not None:
            option = "--tensorboard-port"
            sockets.append(stack.enter_context(listen(LOOPBACK, tensorboard_port, option)))
        address = Address(
            host, int(listener.getsockname()[1]), str(app.state.token), certificate is not None
        )
        on_ready(address)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=sockets)


def _check(config: object, certificate: Path) -> None:
    import ssl

    try:
        config.load()  # type: ignore[attr-defined]
    except (OSError, ssl.SSLError) as error:
        text = f"the certificate {certificate} cannot be used: {error}"
        hint = "--certificate and --key are PEM files of one pair"
        raise ConfigError(Problem(text, hint=hint)) from None
