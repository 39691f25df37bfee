"""Ray on the hosts of a cluster: its head, which mostly does no work, and a node on each factory.

The nodes are ours by process: each runs under a supervisor, another Ray of the host is not touched.
They stay up between runs, and are used again as long as nothing about them has changed.

Whoever has the token can join. The orchestrator knows which machines were given it: when one of
them is no longer in the cluster, and it was not seen to be cleaned, all others get a new one before
the next run, and the head another port.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.services.files import Files
from flambe.cluster.services.service import RUNNING, Service, name_of, variables
from flambe.errors import RemoteError
from flambe.remote import Address, each

SERVICE = "ray"
HOLDERS = "ray-token"  # a mark of the orchestrator: the machines that were given the token
#: What tells a run where it is written how nodes are started; see
#: flambe.experiment.executors.tune.factory_settings.
STARTS = "FLAMBE_RAY_NODES"
#: What tells a run for how many seconds no trial may come further, and its hosts count as needed.
SILENCE = "FLAMBE_SILENCE"
ANSWER_SECONDS = 20.0  # that the head of Ray may take to tell its nodes
STORE = 512 * 1024**2  # bytes of an object store: flambe sends only small things through it
# Of workers and drivers alike; see flambe.experiment.executors.tune.driver for the rest.
_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    # Ray asks for 30 seconds to drain a node that is told to end.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# What must be so of a node for it to be part of Ray at all.
_JOINED = ("name", "address", "port", "token")
_FREE_PORT = "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])"


class RayNodes:
    """Ray on the hosts of one cluster.

    Parameters
    ----------
    cluster
        The cluster.
    """

    def __init__(self, cluster: ClusterContext) -> None:
        self.cluster = cluster

    def start(self, environment: str = "", *, joining: bool = False) -> dict[str, str]:
        """Start the nodes that do not run, or not as they should, all at the same time.

        Parameters
        ----------
        environment
            The name of the environment that they run in; that of the cluster by default.
        joining
            Whether a run may be using them: those that are part of Ray are let be then.

        Returns
        -------
        dict
            The environment variables by which a job on the orchestrator finds Ray.
        """
        environment = environment or self.cluster.environment_name
        cluster, head = self.cluster, self._service(self.cluster.orchestrator)
        is_kept = head.runs and (joining or not self._outsiders())
        known = head.status["about"] if is_kept else {}
        port = known.get("port")
        if port is None:
            port = int(cluster.orchestrator.run(["python3", "-c", _FREE_PORT]).stdout)
        held = self._give_token(known.get("token", ""))
        wanted = {m: self._about(m, environment, port, held) for m in cluster.hosts}
        lacking = [m for m, about in wanted.items() if not self._is_current(m, about, joining)]
        if lacking:
            cluster.observer.note(f"ray: starting {len(lacking)} of {len(wanted)} nodes")
            each(lambda m: self._service(m).start(self._request(m, wanted[m])), lacking)
        if lacking or not joining:
            cluster.orchestrator.put(self._starts(wanted), self._starts_path, mode=0o600)
        address = f"{cluster.orchestrator.machine.private.host}:{port}"
        return {
            **self._variables(cluster.orchestrator),
            "RAY_ADDRESS": address,
            STARTS: cluster.orchestrator.path(self._starts_path),
            SILENCE: str(cluster.stall_timeout),
        }

    def join(self) -> None:
        """Start the nodes of hosts that came later, where the others run."""
        head = self._service(self.cluster.orchestrator)
        if head.runs:
            environment = head.status["about"]["environment"]
            self._bring(environment)
            self.start(environment, joining=True)

    def forget(self, orchestrator: ClusterHost, gone: Collection[str]) -> None:
        """Note that machines, by their identities, have nothing of the cluster's any more."""
        holders = orchestrator.report["marks"].get(HOLDERS)
        if holders and (left := sorted(set(holders) - set(gone))) != holders:
            orchestrator.mark(self.cluster.name, HOLDERS, left)

    def _outsiders(self) -> bool:
        """Whether a machine may have the token that is not in the cluster."""
        holders = self.cluster.orchestrator.report["marks"].get(HOLDERS)
        if holders is None:  # an earlier version did not note it
            return True
        return not {member.identity for member in self.cluster.hosts}.issuperset(holders)

    def _bring(self, environment: str) -> None:
        """Give hosts that came later what others have: the run may be in another environment."""
        cluster = self.cluster
        new = [member for member in cluster.factories if not self._service(member).runs]
        for path in (f"{cluster.remote_dir}/envs/{environment}", f"{cluster.folder}/resources"):
            if not cluster.orchestrator.run(["test", "-e", path], check=False, repeat=True).code:
                each(partial(Files(cluster).give, [f"{path}/"], path), new)

    def remove(self, member: ClusterHost) -> None:
        """Remove what Ray left on a host."""
        member.run(["rm", "-rf", self._scratch(member), self._token(member)], repeat=True)

    # -- one node -----------------------------------------------------------------------------

    def _is_current(self, member: ClusterHost, about: Mapping[str, Any], joining: bool) -> bool:
        """Whether the node of a host runs as it should, or as well as a run can use it."""
        service = self._service(member)
        if not service.runs or not joining:
            return service.runs and bool(service.status["about"] == about)
        running = {**service.status["about"], "name": node_name(service.status)}
        return member.is_orchestrator or all(running[key] == about[key] for key in _JOINED)

    def _service(self, member: ClusterHost) -> Service:
        return Service(self.cluster, member, SERVICE)

    def _request(self, member: ClusterHost, about: Mapping[str, Any]) -> dict[str, Any]:
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
        command = member.agent_argv("ray-node", json.dumps(settings))
        environment = {
            **variables(self.cluster, member),
            **self._variables(member),
            "CUDA_VISIBLE_DEVICES": ",".join(about["gpus"]),
        }
        return self._service(member).request(command, about, environment)

    @property
    def _starts_path(self) -> str:
        return f"{self.cluster.folder}/ray-nodes.json"

    def _starts(self, wanted: Mapping[ClusterHost, Mapping[str, Any]]) -> str:
        """Return how each node is started, as JSON: a run starts those that went down."""
        starts = {
            member.machine.name: {
                "command": member.agent.argv("start"),
                "content": json.dumps(self._request(member, about)),
                "log": self._service(member).status.get("log", ""),
            }
            for member, about in wanted.items()
        }
        return json.dumps(starts)

    def _about(
        self, member: ClusterHost, environment: str, port: int, token: str
    ) -> dict[str, Any]:
        """Return what decides how a node runs."""
        works = member in self.cluster.workers
        return {
            "name": member.machine.name,
            "environment": environment,
            "head": str(self.cluster.orchestrator.machine.private),
            "port": port,
            "token": token,
            "address": str(member.machine.private),
            "cpus": member.facts["cpus"] if works else 0,
            "gpus": member.gpus if works else [],
            "path": member.login_path,
        }

    def _variables(self, member: ClusterHost) -> dict[str, str]:
        return {**_VARIABLES, "RAY_AUTH_TOKEN_PATH": member.path(self._token(member))}

    def _token(self, member: ClusterHost) -> str:
        return _token_path(self.cluster.folder, member.machine.name)

    def _give_token(self, known: str) -> str:
        """See that every host has the token; return a digest by which it is told from others.

        Parameters
        ----------
        known
            The digest of the one that the head has, if it runs.
        """
        head, members = self.cluster.orchestrator, list(self.cluster.hosts)
        lacking = [member for member in members if not known or self._held(member) != known]
        if not lacking:
            return known
        token = head.read(self._token(head)).strip() if known else ""
        holders: list[str] | None = head.report["marks"].get(HOLDERS)
        if not known or _digest(token) != known:
            token, lacking, holders = secrets.token_hex(32), members, []
        if holders is not None:  # else an earlier version gave it, to machines that nobody noted
            # Before it is given: whoever is interrupted in between notes too many, not too few.
            given = sorted({*holders, *(member.identity for member in members)})
            head.mark(self.cluster.name, HOLDERS, given)
        each(lambda m: m.put(token, self._token(m), mode=0o600), lacking)
        return _digest(token)

    def _held(self, member: ClusterHost) -> str:
        """Return the digest of the token that the node of a host was started with, where it is."""
        if node_name(self._service(member).status) != member.machine.name:
            return ""  # its file has the name of the host
        return str(self._service(member).status.get("about", {}).get("token", ""))

    def _scratch(self, member: ClusterHost) -> str:
        # Sockets lie below it: their paths may have 107 characters.
        place = f"{self.cluster.name} {member.path(self.cluster.remote_dir)} {member.facts['user']}"
        return f"/tmp/flambe-ray-{_digest(f'{place} {member.machine.name}')[:10]}"


def node_name(status: Mapping[str, Any]) -> str:
    """Return the name under which the Ray node of a host runs; nothing if none does.

    Parameters
    ----------
    status
        What its supervisor tells of it.
    """
    if status.get("state") != RUNNING:
        return ""
    if name := status.get("about", {}).get("name"):
        return str(name)
    try:  # an earlier version noted it in the command only
        return str(json.loads(status["command"][-1])["name"])
    except (KeyError, IndexError, TypeError, ValueError):
        return ""


def registered(name: str, orchestrator: ClusterHost) -> dict[str, str] | None:
    """Return the nodes that the Ray of a cluster has: name → address; None if it does not say.

    Parameters
    ----------
    name
        Of the cluster.
    orchestrator
        Its orchestrator, as it was looked at.
    """
    status = orchestrator.report["runs"].get(name_of(name, SERVICE), {})
    about = status.get("about", {})
    if status.get("state") != RUNNING or "environment" not in about:
        return None
    root, host = orchestrator.agent.root, Address.parse(about["address"]).host
    python = orchestrator.path(f"{root}/envs/{about['environment']}/bin/python")
    token = orchestrator.path(_token_path(layout.of(root, name), orchestrator.machine.name))
    try:
        done = orchestrator.run(
            [
                python,
                "-m",
                "flambe.experiment.executors.tune.registered_nodes",
                f"{host}:{about['port']}",
            ],
            env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token, "PYTHONPATH": ""},
            deadline=ANSWER_SECONDS,
            check=False,
            repeat=True,
        )
        nodes = json.loads(done.stdout) if done.code == 0 else None
    except (RemoteError, ValueError):
        return None
    return {str(key): str(value) for key, value in nodes.items()} if nodes else None


def _token_path(folder: str, host: str) -> str:
    return f"{folder}/{host}.ray"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
