"""A cloud by hand: ``python -m tests.cloud up``, and it stays until ``python -m tests.cloud down``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cloud import Cloud, CloudError
from tests.metal import missing

STATE = Path(os.environ.get("CLOUD_STATE", "/var/tmp/cloud.json"))  # which `up` made
LOG = STATE.with_suffix(".log")
CHECKOUT = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    print(text, file=sys.stderr)


def ask(path: str, **arguments: Any) -> Any:
    """Ask the cloud that is up."""
    data = json.dumps(arguments).encode()
    try:
        with urllib.request.urlopen(f"{state()['url']}/_cloud/{path}", data) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise CloudError(json.load(error)["error"]) from None
    except OSError as error:
        raise CloudError(f"it does not answer ({error}); see {LOG}") from None


def state() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CloudError("there is none; first: python -m tests.cloud up") from None
    return found


def up(options: argparse.Namespace) -> int:
    """Start a process that is the cloud, and print the variables that lead to it."""
    if STATE.exists():
        raise CloudError("there is one already; first: python -m tests.cloud down")
    if not options.paper:
        if os.geteuid() != 0:
            raise CloudError("hosts need root (try sudo), or: python -m tests.cloud up --paper")
        if packages := missing():
            raise CloudError(f"first: apt-get install {' '.join(packages)}")
    command = [sys.executable, "-m", "tests.cloud", "serve", f"--pace={options.pace}"]
    command += ["--paper"] if options.paper else []
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while not STATE.exists():
        if process.poll() is not None:
            raise CloudError(f"it ended with {process.returncode}; see {LOG}")
        time.sleep(0.05)
    for name, value in ask("environment").items():
        print(f"export {name}={shlex.quote(value)}")
    for name, value in ask("prepared").items():
        say(f"{name}: {value}")
    say('to use it: eval "$(python -m tests.cloud environment)"')
    say("to remove it: python -m tests.cloud down")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Be the cloud, until a signal."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with Cloud(hosts=not options.paper, pace=options.pace) as cloud:
        beside = STATE.with_suffix(".new")
        beside.write_text(json.dumps({"url": cloud.url, "pid": os.getpid()}), encoding="utf-8")
        beside.replace(STATE)
        over.wait()
    STATE.unlink()
    return 0


def down(_: argparse.Namespace) -> int:
    """End the cloud that `up` made, with its hosts."""
    pid = int(state()["pid"])
    try:
        ask("environment")  # or its number may be that of another process by now
        os.kill(pid, signal.SIGTERM)
    except CloudError:
        STATE.unlink()
        say("it had ended; what is left of its hosts goes with: python -m tests.metal down")
        return 0
    while STATE.exists():
        time.sleep(0.05)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print what there is: ``instances``, ``calls``, ``prepared``, or the ``environment``."""
    found = ask(options.what)
    if options.what == "environment":
        print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items()))
    elif isinstance(found, dict):
        print("\n".join(f"{name}: {value}" for name, value in found.items()))
    else:
        print("\n".join(json.dumps(each) for each in found))
    return 0


def fault(options: argparse.Namespace) -> int:
    """Switch a fault on: ``fault capacity left=2``."""
    arguments = {}
    for word in options.arguments:
        name, _, value = word.partition("=")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    print(json.dumps(ask(f"faults/{options.name}", **arguments)))
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.cloud", description="A cloud, by hand.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, does, text in (
        ("up", up, "make a cloud; prints the variables that lead to it"),
        ("serve", serve, "be a cloud, in the foreground"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("--paper", action="store_true", help="instances without hosts, no root")
        one.add_argument(
            "--pace", type=float, default=1.0, help="of CloudWatch's clock (%(default)s)"
        )
        one.set_defaults(does=does)
    one = commands.add_parser("down", help="remove what `up` made")
    one.set_defaults(does=down)
    for name in ("instances", "calls", "prepared", "environment"):
        one = commands.add_parser(name, help=f"print the {name}")
        one.set_defaults(does=show, what=name)
    one = commands.add_parser("fault", help="switch a fault on; `fault clear` ends all")
    one.add_argument("name", help="a method of Faults, such as throttle")
    one.add_argument("arguments", nargs="*", help="such as action=RunInstances times=3")
    one.set_defaults(does=fault)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    try:
        code: int = options.does(options)
    except CloudError as error:
        say(f"cloud: {error}")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
