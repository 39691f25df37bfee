"""Serving a site: the address, the port, the certificate."""

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
    """Where a site is.

    Attributes
    ----------
    host
        The address that it listens on.
    port
        The port.
    token
        What lets people in.
    secure
        Whether it speaks TLS.
    """

    host: str
    port: int
    token: str
    secure: bool = False

    @property
    def url(self) -> str:
        """The address to open."""
        anywhere = self.host in ("0.0.0.0", "::", "")
        name = socket.gethostname() if anywhere else self.host
        name = f"[{name}]" if ":" in name else name
        return f"http{'s' if self.secure else ''}://{name}:{self.port}/?token={self.token}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def listen(host: str, port: int | None, option: str = "--port") -> socket.socket:
    """Return a socket that listens; without a port, the usual one or else any.

    ``option`` is what an error advises to change.

    Raises
    ------
    ConfigError
        If the port is taken, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in [PORT, 0] if port is None else [port]:
        # asyncio sends at once (TCP_NODELAY) only where the protocol is named.
        taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, wanted))
        except (OSError, OverflowError) as error:
            taken.close()
            if port is None and wanted:
                continue
            reason = getattr(error, "strerror", None) or str(error)
            of_port = isinstance(error, OverflowError) or error.errno in PORT_ERRORS
            hint = (
                f"choose another {option}, or leave it out" if of_port else "choose another --host"
            )
            told = f"the site cannot listen on {host}:{wanted}: {reason.lower()}"
            raise ConfigError(Problem(told, hint=hint)) from None
        taken.listen(128)
        return taken
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
        Where to listen; the port is 49558, or another where that is taken.
    token
        What lets people in; a new one by default.
    certificate, key
        Files of a certificate and its key: then it speaks TLS.
    tensorboard_port
        Start TensorBoard at once, and lead to it at this port of the loopback, with the same token;
        by default TensorBoard is started when somebody looks.
    names
        What else it is opened by: a name of the host, where it listens on all addresses.
    parent
        The process that started this one: the site ends with it.
    on_ready
        Called with the address as soon as the site answers.

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
        # Anybody can write X-Forwarded-For: clients are who they are.
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
        # Not the server but the protocol speaks TLS: so it counts who does not end a handshake.
        protocol.tls, config.ssl = config.ssl, None
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(listen(host, port))
        sockets = [taken]
        if tensorboard_port is not None:
            option = "--tensorboard-port"
            sockets.append(stack.enter_context(listen(LOOPBACK, tensorboard_port, option)))
        address = Address(
            host, int(taken.getsockname()[1]), str(app.state.token), certificate is not None
        )
        on_ready(address)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=sockets)


def _check(config: object, certificate: Path) -> None:
    import ssl

    try:
        config.load()  # type: ignore[attr-defined]
    except (OSError, ssl.SSLError) as error:
        told = f"the certificate {certificate} cannot be used: {error}"
        raise ConfigError(
            Problem(told, hint="--certificate and --key are PEM files of one pair")
        ) from None
