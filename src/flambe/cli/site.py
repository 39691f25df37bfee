"""``flambe site``: the Report Site of a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flambe.cli.display import Display
from flambe.cli.results import find_run
from flambe.errors import ConfigError, Problem
from flambe.progress import RunFolder, RunState, VariantState

if TYPE_CHECKING:  # imported when a site is served
    from flambe.report.serve import Address


@dataclass(frozen=True)
class SiteOptions:
    """The options of ``flambe site``."""

    folder: str
    port: int | None = None
    host: str = "127.0.0.1"
    name: Sequence[str] | None = None
    open: bool = False
    certificate: str | None = None
    key: str | None = None
    token_file: str | None = None
    tensorboard_port: int | None = None
    secrets: str | None = None
    parent: int | None = None


def site(options: SiteOptions) -> int:
    """Serve the site of a run until Ctrl-C; for a cluster, forward its site."""
    if not Path(options.folder).is_dir() and _is_cluster(options.folder):
        from flambe.cli.remote_run import forward_site

        return forward_site(
            options.folder, options.secrets, options.port, open_browser=options.open
        )
    from flambe.report.serve import serve

    if (options.certificate is None) != (options.key is None):
        raise ConfigError("--certificate and --key must be given together")
    folder = find_run(Path(options.folder))

    def on_ready(address: Address) -> None:
        print(f"Report Site of {folder.root.name.removeprefix('output__')}: {address.url}")
        if not address.is_local:
            print(f"  {_exposure(address)}", file=sys.stderr)
        print("  Ctrl-C stops the site; a run continues", flush=True)
        if options.open:
            webbrowser.open(address.url)

    serve(
        folder.root,
        host=options.host,
        names=options.name or (),
        port=options.port,
        token=_read_token(Path(options.token_file)) if options.token_file else None,
        certificate=Path(options.certificate) if options.certificate else None,
        key=Path(options.key) if options.key else None,
        tensorboard_port=options.tensorboard_port,
        parent=options.parent,
        on_ready=on_ready,
    )
    return 0


def _is_cluster(name: str) -> bool:
    from flambe.cluster.local_state import ClusterFiles

    return os.path.isfile(name) or not ClusterFiles.of(name).recall().is_empty


def _read_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"the token cannot be read: {path}: {reason}") from None
    if not re.fullmatch(r"[\w.~-]{16,}", token, re.ASCII):
        hint = "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        text = f"{path} does not hold a token: 16 or more letters, digits, '-', '_', '.' and '~'"
        raise ConfigError(Problem(text, hint=hint))
    return token


def _exposure(address: Address) -> str:
    text = (
        f"anyone who can reach {address.host}:{address.port} and has this address can read the "
        "logs, the configuration and the checkpoints of the run"
    )
    if not address.secure:
        text += ";\n  the connection is not encrypted: see --certificate and --key"
    return text


class SiteDisplay:
    """Serves the site of a run while it is in progress; an Observer around another one.

    The site is a process of its own: neither can harm the other.
    """

    def __init__(self, display: Display) -> None:
        self.display = display
        self._process: subprocess.Popen[bytes] | None = None

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Start the site, and print its address when it is ready."""
        self.display.begun(folder, run, variants)
        command = [sys.executable, "-m", "flambe", "site", str(folder.root)]
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is meant for the run; close() stops the site.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._print_address, daemon=True)
        self._reader.start()

    def _print_address(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode(errors="replace").strip()
        self.display.say(line or "the Report Site did not start; see: flambe site")

    def changed(self) -> None:
        """See :class:`Display`."""
        self.display.changed()

    def line(self, variant: VariantState | None, level: str, text: str) -> None:
        """See :class:`Display`."""
        self.display.line(variant, level, text)

    def working(self, variant: VariantState | None, text: str) -> None:
        """See :class:`Display`."""
        self.display.working(variant, text)

    def note(self, text: str) -> None:
        """See :class:`Display`."""
        self.display.note(text)

    def ended(self) -> None:
        """See :class:`Display`."""
        self.display.ended()

    def close(self) -> None:
        """Stop the site."""
        self.display.close()
        if self._process is not None and self._process.stdout is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._reader.join(1)
            self._process.stdout.close()
