"""``flambe site``: the Report Site of a run."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import threading
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flambe.cli.display import Display
from flambe.cli.results import run_folder
from flambe.errors import ConfigError, Problem
from flambe.progress import RunFolder, RunState, VariantState


def site(options: argparse.Namespace) -> int:
    """Serve the site of a run until Ctrl-C; of a cluster, lead to it."""
    if not Path(options.folder).is_dir() and _is_cluster(options.folder):
        from flambe.cli.remote_run import site as of_cluster

        return of_cluster(options)
    from flambe.report.serve import Address, serve

    if (options.certificate is None) != (options.key is None):
        raise ConfigError("--certificate and --key belong together: give both, or none")
    folder = run_folder(Path(options.folder))

    def told(address: Address) -> None:
        print(f"Report Site of {folder.root.name.removeprefix('output__')}: {address.url}")
        if not address.is_local:
            print(f"  {_exposed(address)}", file=sys.stderr)
        print("  Ctrl-C ends the site; a run goes on", flush=True)
        if options.open:
            webbrowser.open(address.url)

    serve(
        folder.root,
        host=options.host,
        names=options.name or (),
        port=options.port,
        token=options.token_file and _token(Path(options.token_file)),
        certificate=options.certificate and Path(options.certificate),
        key=options.key and Path(options.key),
        tensorboard_port=options.tensorboard_port,
        parent=options.parent,
        told=told,
    )
    return 0


def _is_cluster(name: str) -> bool:
    from flambe.cluster.local_state import ClusterFiles

    return os.path.isfile(name) or not ClusterFiles.of(name).recall().is_empty


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"the token cannot be read: {path}: {reason}") from None
    if not re.fullmatch(r"[\w.~-]{16,}", token, re.ASCII):
        hint = "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
        told = f"{path} holds no token: 16 or more letters, digits, '-', '_', '.' and '~'"
        raise ConfigError(Problem(told, hint=hint))
    return token


def _exposed(address: Any) -> str:
    told = (
        f"whoever reaches {address.host}:{address.port} and has this address can read the logs, "
        "the configuration and the checkpoints of the run"
    )
    if not address.secure:
        told += ";\n  what is sent is not encrypted: see --certificate and --key"
    return told


class SiteDisplay:
    """Serves the site of a run for as long as it goes on; an Observer around another one.

    The site is a process of its own: neither can harm the other.
    """

    def __init__(self, shown: Display) -> None:
        self.shown = shown
        self._process: subprocess.Popen[bytes] | None = None

    def begun(self, folder: RunFolder, run: RunState, variants: Mapping[str, VariantState]) -> None:
        """Start the site, and say where it is as soon as it is there."""
        self.shown.begun(folder, run, variants)
        command = [sys.executable, "-m", "flambe", "site", str(folder.root)]
        self._process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for the run; the site sees its end.
            start_new_session=True,
        )
        self._told = threading.Thread(target=self._tell, daemon=True)
        self._told.start()

    def _tell(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode(errors="replace").strip()
        self.shown.say(line or "the Report Site does not start; see: flambe site")

    def close(self) -> None:
        """End the site."""
        self.shown.close()
        if self._process is not None and self._process.stdout is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._told.join(1)
            self._process.stdout.close()

    def __getattr__(self, name: str) -> Any:
        # All else is shown as ever.
        return getattr(self.shown, name)
