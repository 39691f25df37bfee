"""Ray on the hosts of a cluster: its head, which does no work, and a node on each factory.

The nodes are ours by process: each runs under a supervisor, another Ray of the host is not touched.
They stay up between runs, and are used again as long as nothing about them has changed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flambe.cluster.services import Service, variables
from flambe.remote import each

if TYPE_CHECKING:
    from flambe.cluster.cluster import Cluster
    from flambe.cluster.member import Member

SERVICE = "ray"
#: What tells a run where it is written how nodes are started; see flambe.experiment.nodes.
STARTS = "FLAMBE_RAY_NODES"
STORE = 512 * 1024**2  # bytes of an object store: flambe sends only small things through it
# Of workers and drivers alike; see flambe.experiment.tune for the rest.
_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    # Ray asks for 30 seconds to drain a node that is told to end.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_FREE_PORT = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"


class RayNodes:
    """Ray on the hosts of one cluster.

    Parameters
    ----------
    cluster
        The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def start(self, environment: str = "") -> None:
        """Start the nodes that do not run, or not as they should, all at the same time.

        What is run on the orchestrator from then on finds Ray by its environment variables.

        Parameters
        ----------
        environment
            The name of the environment that they run in; that of the cluster by default.
        """
        environment = environment or self.cluster.installed
        cluster, head = self.cluster, self._service(self.cluster.orchestrator)
        port = head.status.get("about", {}).get("port") if head.runs else None
        if port is None:
            port = int(cluster.orchestrator.run(["python3", "-c", _FREE_PORT]).stdout)
        token = head.status["about"]["token"] if head.runs else ""
        held = self._give_token(token)
        wanted = {m: self._about(m, environment, port, held) for m in cluster.members}
        lacking = [
            member
            for member, about in wanted.items()
            if not self._service(member).runs or self._service(member).status["about"] != about
        ]
        if lacking:
            cluster.observer.note(f"ray: starting {len(lacking)} of {len(wanted)} nodes")
            each(lambda m: self._service(m).start(self._request(m, wanted[m])), lacking)
        address = f"{cluster.orchestrator.machine.private.host}:{port}"
        cluster.variables.update(self._variables(cluster.orchestrator), RAY_ADDRESS=address)
        cluster.variables[STARTS] = self._tell_starts(wanted)
        cluster.variables["FLAMBE_SILENCE"] = str(cluster.silence)

    def join(self) -> None:
        """Start the nodes of hosts that came later, where the others run."""
        head = self._service(self.cluster.orchestrator)
        if head.runs:
            environment = head.status["about"]["environment"]
            self._bring(environment)
            self.start(environment)

    def _bring(self, environment: str) -> None:
        """Give hosts that came later what others have: the run may be in another environment."""
        cluster = self.cluster
        new = [member for member in cluster.factories if not self._service(member).runs]
        for name in (f"envs/{environment}", f"clusters/{cluster.name}/resources"):
            path = f"{cluster.remote_dir}/{name}"
            if not cluster.orchestrator.run(["test", "-e", path], check=False, repeat=True).code:
                each(partial(cluster.files.give, [f"{path}/"], path), new)

    def stop(self) -> None:
        """Stop the nodes: the factories first, then the head; nothing of them stays behind."""
        for members in (self.cluster.factories, [self.cluster.orchestrator]):
            each(lambda member: self._service(member).stop(), members)
        each(self.remove, self.cluster.members)

    def remove(self, member: Member) -> None:
        """Remove what Ray left on a host."""
        member.run(["rm", "-rf", self._scratch(member), self._token(member)], repeat=True)

    # -- one node -----------------------------------------------------------------------------

    def _service(self, member: Member) -> Service:
        return Service(self.cluster, member, SERVICE)

    def _request(self, member: Member, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the agent of a host is asked for to start its node."""
        settings = {
            "python": member.path(
                f"{self.cluster.remote_dir}/envs/{about['environment']}/bin/python"
            ),
            "name": member.machine.name,
            "address": member.machine.private.host,
            "head": self.cluster.orchestrator.machine.private.host,
            "port": about["port"],
            "cpus": about["cpus"],
            "gpus": len(about["gpus"]),
            "scratch": self._scratch(member),
            "store": STORE,
        }
        command = member.agent.argv("ray-node", json.dumps(settings))
        command[2] = member.path(member.agent.path)
        environment = {
            **variables(self.cluster, member),
            **self._variables(member),
            "CUDA_VISIBLE_DEVICES": ",".join(about["gpus"]),
        }
        return self._service(member).request(command, about, environment)

    def _tell_starts(self, wanted: Mapping[Member, Mapping[str, Any]]) -> str:
        """Write on the orchestrator how each node is started: a run starts those that went down.

        Returns
        -------
        str
            The path of that file there.
        """
        cluster, starts = self.cluster, {}
        for member, about in wanted.items():
            starts[member.machine.name] = {
                "command": member.agent.argv("start"),
                "content": json.dumps(self._request(member, about)),
                "log": self._service(member).status.get("log", ""),
            }
        path = f"{cluster.remote_dir}/clusters/{cluster.name}/ray-nodes.json"
        cluster.orchestrator.put(json.dumps(starts), path, mode=0o600)
        return cluster.orchestrator.path(path)

    def _about(self, member: Member, environment: str, port: int, token: str) -> dict[str, Any]:
        """Return what decides how a node runs."""
        return {
            "environment": environment,
            "port": port,
            "token": token,
            "address": str(member.machine.private),
            "cpus": 0 if member.is_orchestrator else member.facts["cpus"],
            "gpus": [] if member.is_orchestrator else member.gpus,
        }

    def _variables(self, member: Member) -> dict[str, str]:
        return {**_VARIABLES, "RAY_AUTH_TOKEN_PATH": member.path(self._token(member))}

    def _token(self, member: Member) -> str:
        return f"{self.cluster.remote_dir}/clusters/{self.cluster.name}/{member.machine.name}.ray"

    def _give_token(self, known: str) -> str:
        """See that every host has the token; return a digest by which it is told from others."""
        orchestrator = self.cluster.orchestrator
        token = orchestrator.read(self._token(orchestrator)).strip() if known else ""
        if not known or _digest(token) != known:
            token = secrets.token_hex(32)
        each(lambda m: m.put(token, self._token(m), mode=0o600), self._without_token(token))
        return _digest(token)

    def _without_token(self, token: str) -> list[Member]:
        digest = _digest(token)
        return [
            member
            for member in self.cluster.members
            if self._service(member).status.get("about", {}).get("token") != digest
        ]

    def _scratch(self, member: Member) -> str:
        # Sockets lie below it: their paths may have 107 characters.
        place = f"{self.cluster.name} {member.path(self.cluster.remote_dir)} {member.facts['user']}"
        return f"/tmp/flambe-ray-{_digest(f'{place} {member.machine.name}')[:10]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
