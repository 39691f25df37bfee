"""The commands of the agent."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys

from flambe.remote.agent.message import plain
from flambe.remote.agent.protocol import HostReport, ReportRequest


def main() -> int:
    """Run the command that the arguments name; print JSON."""
    parser = argparse.ArgumentParser(prog="flambe-agent")
    parser.add_argument("--root", default=".flambe", help="flambe's folder on this host")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in (
        "report",
        "start",
        "stop",
        "lock",
        "unlock",
        "mark",
        "keys",
        "forget_keys",
        "forget",
        "lease",
    ):
        commands.add_parser(name)  # their arguments are a JSON object on the input
    follow = commands.add_parser("follow")
    follow.add_argument("name")
    follow.add_argument("--offset", type=int, default=0)
    follow.add_argument("--once", action="store_true")
    commands.add_parser("system")
    reap = commands.add_parser("reap")
    reap.add_argument("settings", help="a file; see flambe.remote.agent.reaper.reaper")
    retire = commands.add_parser("retire")
    retire.add_argument("cluster")
    node = commands.add_parser("ray-node")
    node.add_argument("settings", help="JSON")
    boot = commands.add_parser("await-boot")
    boot.add_argument("seconds", type=float)
    for name in ("ray-start", "ray-keep"):
        ray_command = commands.add_parser(name)
        ray_command.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    root = os.path.join(os.path.expanduser("~"), options.root)
    if options.command == "follow":
        from flambe.remote.agent import supervisor

        return int(supervisor.follow(_own(root), options.name, options.offset, once=options.once))
    if options.command == "system":
        from flambe.remote.agent import verify

        json.dump(plain(verify.system()), sys.stdout)
        return 0
    if options.command == "reap":
        from flambe.remote.agent.reaper import reaper

        return reaper.main(options.settings)
    if options.command == "await-boot":
        from flambe.remote.agent import boot as booting

        booting.wait(options.seconds)
        return 0
    if options.command == "retire":
        from flambe.remote.agent import supervisor

        supervisor.retire(_own(root), options.cluster)
        return 0
    if options.command == "ray-node":
        from flambe.remote.agent import ray

        ray.become_node(**json.loads(options.settings))
    if options.command in ("ray-start", "ray-keep"):
        from flambe.remote.agent import ray_start

        if options.command == "ray-keep":
            return ray_start.keep(options.arguments)
        ray_start.main(options.arguments)
        return 0
    payload = json.loads(sys.stdin.read() or "{}")
    json.dump(plain(_answer(options.command, root, payload)), sys.stdout)
    return 0


def _own(root: str) -> str:
    """Return the folder of this host's own state: several hosts may share a home."""
    return os.path.join(root, "hosts", socket.gethostname())


def _answer(command: str, root: str, payload: object) -> object:
    """Do what a request asks for, and return the answer."""
    from flambe.remote.agent import host_state, keys, leases, locks, supervisor
    from flambe.remote.agent import protocol as messages

    own = _own(root)
    if command == "report":
        return _report(root, own, messages.ReportRequest.from_json(payload))
    if command == "start":
        return supervisor.start(own, messages.StartRequest.from_json(payload))
    if command == "stop":
        return supervisor.stop(own, messages.StopRequest.from_json(payload))
    if command == "lock":
        return locks.acquire(own, messages.LockRequest.from_json(payload))
    if command == "unlock":
        return {"released": locks.release(own, messages.UnlockRequest.from_json(payload))}
    if command == "keys":
        keys.install(messages.KeysRequest.from_json(payload))
    elif command == "forget_keys":
        keys.remove(messages.ForgetKeysRequest.from_json(payload))
    elif command == "lease":
        leases.take(own, messages.LeaseRequest.from_json(payload))
    elif command == "forget":
        host_state.forget(own, messages.ForgetRequest.from_json(payload))
    else:
        host_state.write(own, messages.MarkRequest.from_json(payload))
    return {}


def _report(root: str, own: str, request: ReportRequest) -> HostReport:
    from flambe.remote.agent import facts, host_state, keys, locks, supervisor, verify
    from flambe.remote.agent.files import private_folder
    from flambe.remote.agent.reaper import reaper_status

    private_folder(root)
    return HostReport(
        facts=facts.gather(root),
        marks=host_state.read(own, request.cluster),
        keys=keys.read(request.cluster),
        runs=supervisor.statuses(own),
        locks=locks.read(own),
        reaper=reaper_status.read(own, request.cluster),
        environment=verify.environment(root, request.environment),
        system=verify.system() if request.system else {},
    )


if __name__ == "__main__":
    sys.exit(main())
