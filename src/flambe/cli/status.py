"""``flambe status``: the hosts of clusters, their current or last run, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.text import Text

from flambe.cli import fetch
from flambe.cli.hosts_table import hosts_table, instance_lines
from flambe.cli.targets import ClusterDisplay, TargetStatus, read_status
from flambe.cluster import job
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.local_state import recorded_clusters
from flambe.cluster.machine import order
from flambe.cluster.services import ray_node, ray_service
from flambe.cluster.services import service as services
from flambe.errors import ConfigError, FlambeError, RemoteError, RunError
from flambe.logging.plain import plain
from flambe.progress import RunState, Status, format_duration, read_state_text
from flambe.remote.agent.protocol import LockHolder, RunStatus
from flambe.remote.gather import outcomes

#: How a run is reported that could not record its own end.
INTERRUPTED = "interrupted: it was killed, or its host went down"

# Seconds until a host that does not answer is shown as unreachable.
CONNECT_SECONDS = 8.0


@dataclass
class ClusterReport:
    """A cluster as its hosts have just reported it.

    Attributes
    ----------
    target
        The cluster as this machine and its provider know it.
    hosts
        Its hosts.
    experiment
        Its current or last run, if that is an experiment.
    ray_nodes
        The nodes that Ray has, name → address; None if Ray does not answer.
    errors
        Of the hosts that were not reached.
    """

    target: TargetStatus
    hosts: Sequence[ClusterHost] = ()
    experiment: RunState | None = None
    ray_nodes: dict[str, str] | None = None
    errors: list[RemoteError] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the cluster."""
        return self.target.name

    @property
    def orchestrator(self) -> ClusterHost | None:
        """The orchestrator, if it was reached."""
        return next((host for host in self.hosts if host.is_orchestrator and host.has_report), None)

    @property
    def is_running(self) -> bool:
        """Whether a run is in progress."""
        host = self.orchestrator
        run = host.report.runs.get(self.name) if host is not None else None
        return run is not None and run.runs

    def refresh(self, display: ClusterDisplay) -> None:
        """Ask all hosts."""

        def ask(host: ClusterHost) -> None:
            host.connect(CONNECT_SECONDS, display.note)
            host.refresh(self.name)
            runs = host.report.runs
            environment = runs[self.name].about.get("environment") if self.name in runs else ""
            host.refresh(self.name, str(environment or host.files.recall().environment))
            if host.is_orchestrator:
                self.ray_nodes = ray_service.registered_nodes(self.name, host)
                self.experiment = newest_run(host, self.name) if self.name in runs else None

        results = outcomes(ask, self.target.hosts)
        self.errors = [result for result in results if isinstance(result, RemoteError)]
        self.hosts = sorted(self.target.hosts, key=lambda host: order(host.machine.name))

    def foreign_ray_nodes(self) -> dict[str, str]:
        """Return the nodes that Ray has but the cluster does not: name → address."""
        service = services.name_of(self.name, ray_node.SERVICE)
        reached = [host for host in self.hosts if host.has_report]
        own = {ray_node.node_name(host.report.runs.get(service)) for host in reached}
        own |= {host.machine.name for host in self.hosts}
        return {name: node for name, node in (self.ray_nodes or {}).items() if name not in own}


@dataclass(frozen=True)
class StatusOptions:
    """The options of ``flambe status``."""

    cluster: str | None = None
    secrets: str | None = None


def status(options: StatusOptions) -> int:
    """Show the hosts of one cluster, or of every cluster used from this machine."""
    names = [options.cluster] if options.cluster else recorded_clusters()
    display = ClusterDisplay()
    if not names:
        display.console.print("no cluster was used from this machine yet")
    # All clusters are asked at the same time; each table shows the errors of its hosts.
    results = outcomes(
        lambda name: _print_status(name, display, options.secrets, alone=len(names) == 1), names
    )
    for result in results:
        if isinstance(result, RemoteError):
            display.note(str(result))
    return max((code if isinstance(code, int) else 1 for code in results), default=0)


def _print_status(
    cluster: str, display: ClusterDisplay, secrets: str | None, *, alone: bool
) -> int:
    try:
        report = ClusterReport(read_status(cluster, secrets))
    except (ConfigError, RunError) as error:
        if alone:
            raise
        raise RemoteError(cluster, str(error)) from None  # the others are shown all the same
    report.refresh(display)
    instances = report.target.instances
    with display.lock:
        display.console.print(Text(report.name, "bold"))
        table = hosts_table(
            report.name,
            report.hosts,
            width=display.console.width,
            instances=instances,
            ray_nodes=report.ray_nodes,
        )
        display.console.print(table)
        for text in [*instance_lines(instances, report.hosts), *_run_lines(report)]:
            display.console.print(text, soft_wrap=True, style="dim")
        for unreachable in report.errors:
            display.console.print(Text(str(unreachable), "red"), soft_wrap=True)
        if report.errors and not report.is_running:
            effect = "removes the record of the cluster, if its hosts no longer exist"
            effect = "takes its hosts down without checking them" if instances else effect
            text = f"flambe down {cluster} --force   {effect}"
            display.console.print(text, style="dim", soft_wrap=True)
        if not report.hosts:
            display.console.print("its hosts are not running", style="dim")
    return 1 if report.errors else 0


def _run_lines(report: ClusterReport) -> list[str]:
    """Return the lines below the table of hosts."""
    lines = [
        f"Ray also has {name} ({address}), which is not in the cluster: the next run removes it"
        for name, address in sorted(report.foreign_ray_nodes().items())
    ]
    host = report.orchestrator
    return [*lines, *run_lines(report.name, host, report.experiment)] if host else lines


def run_lines(name: str, host: ClusterHost, experiment: RunState | None) -> list[str]:
    """Return the status of the run of a cluster, and the command that follows or continues it.

    Parameters
    ----------
    name, host
        The cluster, and its orchestrator with its latest report.
    experiment
        The state that the run has written, if it is an experiment.
    """
    run = host.report.runs.get(name)
    if run is None:
        return ["nothing was run on it yet"]
    command = LockHolder.from_json(run.about).command
    running = run.runs
    lines = [f"{_job_text(run, job.stopped_by(host, name))}: {command}"]
    if experiment is not None:
        outcome = experiment.outcome
        if experiment.status is Status.RUNNING and not running:
            outcome = Status.INTERRUPTED.value  # the run could not record it
        lines.append(f"{plain(experiment.name)}: {outcome}, {counted_variants(experiment)}")
        if not running and experiment.status is not Status.FINISHED:
            lines.append(f"  to continue:   {resuming(command)}")
    if running:
        lines.append(f"  to follow it:   flambe logs {name} -f")
    return lines


def _job_text(run: RunStatus, stopped_by: str) -> str:
    """Return the status of a run as its supervisor reports it."""
    if run.runs:
        return f"running for {format_duration(run.started_ago)}, started by {job.started_by(run)}"
    if run.code is None:
        return f"the last run was {INTERRUPTED}"
    ago = format_duration(run.ended_ago or 0.0)
    if run.code and stopped_by:
        return f"the last run was stopped {ago} ago by {stopped_by.partition(':')[0]}"
    if run.code > 128:  # by a signal
        return f"the last run was interrupted {ago} ago: it was killed (exit code {run.code})"
    return f"the last run ended {ago} ago with exit code {run.code}"


def resuming(command: str) -> str:
    """Return the command that continues a run that a command started."""
    arguments = [argument for argument in shlex.split(command) if argument != "--force"]
    if not any(argument.startswith("--resume") for argument in arguments):
        arguments.append("--resume")
    return shlex.join(arguments)


# Prints the newest state file of the runs in some folders, if there is one.
_NEWEST = """\
for folder; do ls -1dt "$folder"output__*/state.json "$folder"*/output__*/state.json
done 2>/dev/null | head -n 1 | while IFS= read -r state; do cat "$state"; done"""


def newest_run(host: ClusterHost, name: str) -> RunState | None:
    """Return the state of the current or last run of a cluster; None if it is not an experiment."""
    started = host.report.runs[name].started if name in host.report.runs else 0.0
    try:
        folders = list(fetch.result_folders(host, name))
        text = host.run(["sh", "-c", _NEWEST, "sh", *folders], repeat=True).stdout
        run = read_state_text(text)
    except (FlambeError, ValueError, TypeError, KeyError, RecursionError):
        return None
    # An older state belongs to an earlier run.
    return run if (run.started or 0.0) >= started else None


def counted_variants(run: RunState) -> str:
    """Return ``3 of 12 variants done``, of all stages."""
    stages = [stage for stage in run.stages if stage.runs]
    done = sum(n for s in stages for status, n in s.counts.items() if status in _DONE)
    planned = sum(stage.total - stage.counts.get(Status.MASKED.value, 0) for stage in stages)
    failed = f", {run.failed} failed" if run.failed and run.status is not Status.FINISHED else ""
    return f"{done} of {planned} variants done{failed}"


_DONE = {status.value for status in Status if status.done}
