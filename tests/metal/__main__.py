"""Hosts by hand: ``python -m tests.metal up 4``, and they stay until ``python -m tests.metal down``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tests.metal import Metal, MetalError, missing
from tests.metal.machine import CLEAN, child, claims
from tests.metal.node import enter


def say(text: str) -> None:
    print(text, file=sys.stderr)


def up(options: argparse.Namespace) -> int:
    """Make hosts, and print the file of a cluster of them."""
    if packages := missing():
        raise MetalError(f"first: apt-get install {' '.join(packages)}")
    metal = Metal(options.count, user=options.user, base=options.base)
    metal.up()
    metal.keep()
    for host in metal.hosts:
        say(f"{host.name}  ssh -i {metal.key} {host.user}@{host.address}")
    say(f"to remove them: python -m tests.metal down {metal.claim.bridge}")
    print(metal.cluster_yaml(), end="")
    return 0


def down(options: argparse.Namespace) -> int:
    """Remove the hosts that were made by hand, and what the dead left."""
    found = [claim for claim in claims() if claim.kept or claim.orphan]
    if options.name:
        found = [claim for claim in found if claim.bridge in options.name]
    for claim in found:
        say(f"removing {claim.bridge}: {', '.join(sorted(claim.hosts())) or 'no host is alive'}")
        claim.give_back()
    if not found:
        say("there are none")
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the hosts that are alive: name, address, and whose they are."""
    for claim in claims():
        owner = "kept" if claim.kept else f"of process {claim.read().get('pid', '?')}"
        for name in sorted(claim.hosts()):
            print(f"{name}\t{claim.address(int(name.rpartition('-')[2]))}\t{owner}")
    return 0


def execute(options: argparse.Namespace) -> int:
    """Become a program on a host."""
    hosts = {name: holder for claim in claims() for name, holder in claim.hosts().items()}
    if options.name not in hosts:
        raise MetalError(f"no host {options.name}; there are: {', '.join(sorted(hosts)) or 'none'}")
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not argv:
        raise MetalError("which command? exec NAME -- COMMAND ...")
    command = enter(child(hosts[options.name]), argv, options.user)
    os.execvpe(command[0], command, {**CLEAN, "TERM": os.environ.get("TERM", "dumb")})


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.metal", description="Real hosts, by hand.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("up", help="make hosts; prints a cluster file")
    one.add_argument("count", type=int, help="how many")
    one.add_argument("--user", default="ubuntu", help="the user of each (%(default)s)")
    one.add_argument(
        "--base", default="/", help="the folder that their roots start as (%(default)s)"
    )
    one.set_defaults(does=up)
    one = commands.add_parser("down", help="remove what `up` made")
    one.add_argument("name", nargs="*", help="metal1 for one: only what `up` made then (all)")
    one.set_defaults(does=down)
    one = commands.add_parser("list", help="print the hosts that are alive")
    one.set_defaults(does=show)
    one = commands.add_parser("exec", help="run a program on a host, without SSH")
    one.add_argument("--user", default="root", help="as whom (%(default)s)")
    one.add_argument("name", help="of the host, as `list` prints it")
    one.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ...")
    one.set_defaults(does=execute)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if os.geteuid() != 0:
        say("metal: making hosts needs root (try sudo)")
        return 1
    try:
        code: int = options.does(options)
    except MetalError as error:
        say(f"metal: {error}")
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
