"""Ray on the hosts of a cluster: its head on the orchestrator, and a node on each factory.

The nodes are ours by process: each runs under a supervisor, and another Ray of the host is not
touched. They stay up between runs, and are used again as long as nothing about them has changed.

Every machine that has the token can join. The orchestrator keeps a record of those that got it:
when one of them is no longer in the cluster, and was not seen to be cleaned, all others get a new
token before the next run, and the head another port.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping
from functools import partial

from flambe.cluster import layout
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.context import ClusterContext
from flambe.cluster.services.files import Files
from flambe.cluster.services.ray_node import SERVICE, RayNode
from flambe.cluster.services.service import Service, name_of, variables
from flambe.errors import RemoteError
from flambe.remote import Address, each
from flambe.remote.agent.protocol import StartRequest

TOKEN_HOLDERS = "ray-token"  # a mark of the orchestrator: the machines that got the token
#: The environment variable that names the file with the requests that start nodes; see
#: flambe.experiment.executors.tune.factory_settings.
NODE_STARTS = "FLAMBE_RAY_NODES"
#: The environment variable with the seconds that a run may go without progress before its hosts
#: count as idle.
STALL_TIMEOUT = "FLAMBE_SILENCE"
ANSWER_SECONDS = 20.0  # that the head of Ray may take to list its nodes
STORE = 512 * 1024**2  # bytes of an object store: flambe sends only small things through it
# Of workers and drivers alike; see flambe.experiment.executors.tune.driver for the rest.
_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    # By default Ray takes 30 seconds to drain a node that is asked to end.
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

    def __init__(self, cluster: ClusterContext) -> None:
        self.cluster = cluster

    def start(self, environment: str = "", *, joining: bool = False) -> dict[str, str]:
        """Start the nodes that do not run, or not as they should, all at the same time.

        Parameters
        ----------
        environment
            The name of the environment that they run in; that of the cluster by default.
        joining
            Whether a run may be using them: nodes that are part of Ray are left alone then.

        Returns
        -------
        dict
            The environment variables by which a job on the orchestrator finds Ray.
        """
        cluster, orchestrator = self.cluster, self.cluster.orchestrator
        head = self._running(orchestrator)
        if head is not None and not joining and self.has_former_holders():
            head = None
        port = head.port if head is not None else 0
        if not port:
            port = int(orchestrator.run(["python3", "-c", _FREE_PORT]).stdout)
        token = self.distribute_token(head.token if head is not None else "")
        environment = environment or cluster.environment_name
        nodes = {host: self._node(host, environment, port, token) for host in cluster.hosts}
        stale = [host for host, node in nodes.items() if not self._is_current(host, node, joining)]
        if stale:
            cluster.observer.note(f"ray: starting {len(stale)} of {len(nodes)} nodes")
            each(
                lambda host: self._service(host).start(self._start_request(host, nodes[host])),
                stale,
            )
        if stale or not joining:
            orchestrator.put(self._format_starts(nodes), self._starts_path, mode=0o600)
        return {
            **self._variables(orchestrator),
            "RAY_ADDRESS": f"{orchestrator.machine.private.host}:{port}",
            NODE_STARTS: orchestrator.path(self._starts_path),
            STALL_TIMEOUT: str(cluster.stall_timeout),
        }

    def join(self) -> None:
        """Start the nodes of hosts that were added, if the head runs."""
        head = self._running(self.cluster.orchestrator)
        if head is not None:
            self._copy_environment(head.environment)
            self.start(head.environment, joining=True)

    def forget_holders(self, orchestrator: ClusterHost, identities: Collection[str]) -> None:
        """Record that machines, by their identities, no longer have the token."""
        holders = _token_holders(orchestrator)
        if holders and (others := sorted(set(holders) - set(identities))) != holders:
            orchestrator.mark(self.cluster.name, TOKEN_HOLDERS, others)

    def has_former_holders(self) -> bool:
        """Whether a machine that is not in the cluster may have the token."""
        holders = _token_holders(self.cluster.orchestrator)
        if holders is None:  # an earlier version kept no record
            return True
        return not {host.identity for host in self.cluster.hosts}.issuperset(holders)

    def _copy_environment(self, environment: str) -> None:
        """Copy what the run uses to hosts that were added; it may be in another environment."""
        cluster = self.cluster
        new = [host for host in cluster.factories if not self._service(host).is_running]
        for path in (f"{cluster.remote_dir}/envs/{environment}", f"{cluster.folder}/resources"):
            if not cluster.orchestrator.run(["test", "-e", path], check=False, repeat=True).code:
                each(partial(Files(cluster).give, [f"{path}/"], path), new)

    def remove(self, host: ClusterHost) -> None:
        """Remove what Ray left on a host."""
        host.run(["rm", "-rf", self._scratch(host), self._token_file(host)], repeat=True)

    # -- one node -----------------------------------------------------------------------------

    def _service(self, host: ClusterHost) -> Service:
        return Service(self.cluster, host, SERVICE)

    def _running(self, host: ClusterHost) -> RayNode | None:
        return RayNode.running(self._service(host).status)

    def _is_current(self, host: ClusterHost, node: RayNode, joining: bool) -> bool:
        """Whether the node of a host runs as it should, or at least as a run can use it."""
        running = self._running(host)
        if running is None or not joining:
            return self._service(host).about == node.to_about()
        return host.is_orchestrator or running.joins_as(node)

    def _node(self, host: ClusterHost, environment: str, port: int, token: str) -> RayNode:
        works = host in self.cluster.workers
        return RayNode(
            name=host.machine.name,
            environment=environment,
            head=str(self.cluster.orchestrator.machine.private),
            port=port,
            token=token,
            address=str(host.machine.private),
            cpus=host.facts.cpus if works else 0,
            gpus=tuple(host.gpus) if works else (),
            path=host.login_path,
        )

    def _start_request(self, host: ClusterHost, node: RayNode) -> StartRequest:
        """Return the request to the agent of a host that starts its node."""
        settings = {
            "python": host.path(layout.python(self.cluster.remote_dir, node.environment)),
            "name": host.machine.name,
            "address": host.machine.private.host,
            "head": self.cluster.orchestrator.machine.private.host,
            "port": node.port,
            "cpus": node.cpus,
            "gpus": len(node.gpus),
            "scratch": self._scratch(host),
            "store": STORE,
        }
        env = {
            **variables(self.cluster, host),
            **self._variables(host),
            "CUDA_VISIBLE_DEVICES": ",".join(node.gpus),
        }
        command = host.agent_argv("ray-node", json.dumps(settings))
        return self._service(host).start_request(command, node.to_about(), env)

    @property
    def _starts_path(self) -> str:
        return f"{self.cluster.folder}/ray-nodes.json"

    def _format_starts(self, nodes: Mapping[ClusterHost, RayNode]) -> str:
        """Return how each node is started, as JSON: a run restarts nodes that went down."""
        starts = {
            host.machine.name: {
                "command": host.agent.argv("start"),
                "content": json.dumps(self._start_request(host, node).to_json()),
                "log": status.log if (status := self._service(host).status) is not None else "",
            }
            for host, node in nodes.items()
        }
        return json.dumps(starts)

    def _variables(self, host: ClusterHost) -> dict[str, str]:
        return {**_VARIABLES, "RAY_AUTH_TOKEN_PATH": host.path(self._token_file(host))}

    def _scratch(self, host: ClusterHost) -> str:
        # The paths of the sockets in it may have 107 characters.
        root, user = host.path(self.cluster.remote_dir), host.facts.user
        digest = _digest(f"{self.cluster.name} {root} {user} {host.machine.name}")
        return f"/tmp/flambe-ray-{digest[:10]}"

    # -- the token ----------------------------------------------------------------------------

    def _token_file(self, host: ClusterHost) -> str:
        return _token_path(self.cluster.folder, host.machine.name)

    def distribute_token(self, current: str) -> str:
        """Give every host the token, a new one if necessary; return its digest.

        Parameters
        ----------
        current
            The digest of the token that the head runs with; empty if it does not run.
        """
        head, hosts = self.cluster.orchestrator, list(self.cluster.hosts)
        recipients = [host for host in hosts if not current or self._token_on(host) != current]
        if not recipients:
            return current
        token = head.read(self._token_file(head)).strip() if current else ""
        holders = _token_holders(head)
        if not current or _digest(token) != current:
            token, recipients, holders = secrets.token_hex(32), hosts, []
        if holders is not None:  # else an earlier version distributed it without a record
            # Before it is distributed: an interruption leaves too many names, not too few.
            identities = {*holders, *(host.identity for host in hosts)}
            head.mark(self.cluster.name, TOKEN_HOLDERS, sorted(identities))
        each(lambda host: host.put(token, self._token_file(host), mode=0o600), recipients)
        return _digest(token)

    def _token_on(self, host: ClusterHost) -> str:
        """Return the digest of the token in the file of a host; empty if it is not known."""
        running = self._running(host)
        if running is None or running.name != host.machine.name:
            return ""  # its file is named after the host
        return running.token


def registered_nodes(name: str, orchestrator: ClusterHost) -> dict[str, str] | None:
    """Return the nodes that the Ray of a cluster has: name → address; None without an answer.

    Parameters
    ----------
    name
        The name of the cluster.
    orchestrator
        Its orchestrator, with its report.
    """
    head = RayNode.running(orchestrator.report.runs.get(name_of(name, SERVICE)))
    if head is None or not head.environment:
        return None
    root, address = orchestrator.agent.root, Address.parse(head.address).host
    python = orchestrator.path(layout.python(root, head.environment))
    token = orchestrator.path(_token_path(layout.of(root, name), orchestrator.machine.name))
    module = "flambe.experiment.executors.tune.registered_nodes"
    try:
        result = orchestrator.run(
            [python, "-m", module, f"{address}:{head.port}"],
            env={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token, "PYTHONPATH": ""},
            deadline=ANSWER_SECONDS,
            check=False,
            repeat=True,
        )
        nodes = json.loads(result.stdout) if result.code == 0 else None
    except (RemoteError, ValueError):
        return None
    if not isinstance(nodes, dict) or not nodes:
        return None
    return {str(name): str(address) for name, address in nodes.items()}


def _token_holders(orchestrator: ClusterHost) -> list[str] | None:
    """Return the identities of the machines that have the token; None without a record."""
    holders = orchestrator.report.marks.get(TOKEN_HOLDERS)
    return [str(identity) for identity in holders] if isinstance(holders, list) else None


def _token_path(folder: str, host: str) -> str:
    return f"{folder}/{host}.ray"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
