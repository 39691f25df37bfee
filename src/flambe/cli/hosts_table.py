"""The hosts of a cluster as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import InstanceStatus, describe_end
from flambe.cluster.provisioning import gpu_selection
from flambe.cluster.services import ray_node, service
from flambe.progress import format_duration
from flambe.remote.agent.protocol import OwnDistribution

EXTENSIONS, RAY = "extensions", "Ray"


# The columns by importance: in a narrow table, the last ones are left out first.
_COLUMNS = (
    "host",
    "state",
    "ends",
    RAY,
    "address",
    "up",
    "GPUs",
    "CPUs",
    "flambe",
    "memory",
    "Python",
    EXTENSIONS,
)
_WRAP = ("GPUs", "ends", RAY, EXTENSIONS)


def hosts_table(
    name: str,
    hosts: Sequence[ClusterHost],
    *,
    prepared: bool = False,
    width: int = 140,
    instances: Mapping[str, InstanceStatus] | None = None,
    ray_nodes: Mapping[str, str] | None = None,
) -> Table:
    """Return the hosts of a cluster as a table, without the columns that do not fit.

    Parameters
    ----------
    name
        The name of the cluster.
    hosts
        Its hosts; those without a report are shown as unreachable.
    prepared
        Whether they were just provisioned: which GPUs may be used is known then.
    width
        The width that is available.
    instances
        The status of each host that the cluster created.
    ray_nodes
        The nodes that Ray has, by the names of their hosts; None if Ray does not answer.
    """
    rows = [_row(name, host, prepared, instances or {}) for host in hosts]
    for row, host in zip(rows, hosts, strict=True):
        row[RAY] = _ray_cell(name, host, ray_nodes) if not prepared else Text()
    titles = ["host", "address", "CPUs", "GPUs", "memory", "Python", "flambe", EXTENSIONS, "up"]
    titles += ["ends", RAY, "state"]
    for title in (EXTENSIONS, "up", "ends", RAY):
        # A reaper that was just configured has no state yet.
        if not any(row[title].plain for row in rows) or (title == "ends" and prepared):
            titles.remove(title)
    for title in reversed(_COLUMNS):
        if _width(titles, rows) > width and title in titles[1:-1]:
            titles.remove(title)
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in titles:
        number = title in ("CPUs", "memory")
        wraps = title in _WRAP
        table.add_column(title, justify="right" if number else "left", no_wrap=not wraps)
    for row in rows:
        table.add_row(*(row[title] for title in titles))
    return table


def _width(titles: Sequence[str], rows: Sequence[Mapping[str, Text]]) -> int:
    """Return the minimum width of a table: columns that wrap are as wide as their longest word."""
    width = 0
    for title in titles:
        texts = [title, *(row[title].plain for row in rows)]
        wraps = title in _WRAP
        parts = [part for text in texts for part in text.split()] if wraps else texts
        width += max(len(part) for part in parts) + 2
    return width - 2


def _row(
    name: str, host: ClusterHost, prepared: bool, instances: Mapping[str, InstanceStatus]
) -> dict[str, Text]:
    """Return the cells of a host, by column."""
    row = {title: Text() for title in _COLUMNS}
    row["host"] = Text(host.machine.name)
    row["address"] = Text(str(host.machine.address))
    if (instance := instances.get(host.machine.name)) is not None:
        row["up"] = Text(format_duration(instance.age))
    if not host.has_report:
        return {**row, "state": Text("unreachable", "bold red")}
    facts, own = host.facts, _own_distributions(host)
    gpus = gpu_selection.summarize(facts.gpus, name, len(host.gpus) if prepared else None)
    run = host.report.runs.get(name)
    if any(distribution.wrong for distribution in own.values()):
        state = Text("altered", "bold red")
    elif run is not None and run.runs:
        state = Text("running", "bold cyan")
    else:
        state = Text("ready", "green")
    return {
        **row,
        "CPUs": Text(str(facts.cpus)),
        "GPUs": Text(gpus),
        "memory": Text(_size(facts.memory)),
        "Python": Text(facts.python),
        "flambe": Text(_hash(own.get("flambe"))),
        EXTENSIONS: Text(_extensions(host)),
        "ends": Text(describe_end(host.report.reaper)),
        "state": state,
    }


def instance_lines(
    instances: Mapping[str, InstanceStatus], hosts: Sequence[ClusterHost]
) -> list[str]:
    """Return lines about created hosts that are not in the table, and about instance-hours."""
    in_table = {host.machine.name for host in hosts}
    lines = [
        f"{name} ({instance.identity}) is {instance.state}"
        for name, instance in instances.items()
        if name not in in_table
    ]
    hours = sum(instance.hours for instance in instances.values())
    if hours:
        digits = 1 if hours > 10 else 2
        lines.append(f"{hours:.{digits}f} instance-hours since they were started")
    return lines


def _ray_cell(name: str, host: ClusterHost, ray_nodes: Mapping[str, str] | None) -> Text:
    """Return whether Ray has the node of a host, and its name in Ray if that is another one."""
    host_name = host.machine.name
    if not host.has_report:
        return Text("joined" if host_name in (ray_nodes or ()) else "")
    status = host.report.runs.get(service.name_of(name, ray_node.SERVICE))
    node = ray_node.node_name(status)
    if status is None or not node:
        return Text("")
    if ray_nodes is None:
        return Text("not known", "yellow")
    if node not in ray_nodes:
        restarts = f", {status.restarts} restarts" if status.restarts else ""
        return Text(f"not joined{restarts}", "yellow")
    if node != host_name:
        return Text(f"as {node}", "yellow")
    return Text("head" if host.is_orchestrator else "joined", "green")


def _own_distributions(host: ClusterHost) -> Mapping[str, OwnDistribution]:
    """Return flambe and the extensions on a host, with the hashes of their files."""
    environment = host.report.environment
    return environment.ours if environment is not None else {}


def _hash(distribution: OwnDistribution | None) -> str:
    if distribution is None:
        return ""
    return "altered" if distribution.wrong else distribution.hash[:8]


def _extensions(host: ClusterHost) -> str:
    """Return the extensions on a host: name, version, and the start of the hash of their files."""
    own = _own_distributions(host)
    environment = host.report.environment
    versions = environment.distributions if environment is not None else {}
    names = sorted(name for name in own if name != "flambe")
    return ", ".join(f"{name} {versions[name]} ({_hash(own[name])})" for name in names)


def _size(size: float) -> str:
    return f"{size / 1024**3:.0f} GiB"
