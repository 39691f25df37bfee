"""``flambe status``: the hosts of clusters, what runs or ran there last, and what to do next."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from flambe.cli import fetch
from flambe.cli.hosts_table import hosts_table, standing_told
from flambe.cli.results_table import took
from flambe.cli.targets import ClusterDisplay, standing_of
from flambe.cluster import job as launch
from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.instance_status import InstanceStatus
from flambe.cluster.local_state import recorded_clusters
from flambe.cluster.machine import order
from flambe.cluster.services import ray_node, ray_service
from flambe.cluster.services import service as services
from flambe.errors import ConfigError, FlambeError, RemoteError, RunError
from flambe.logging.plain import plain
from flambe.progress import RunState, Status, read_state_text
from flambe.remote.gather import outcomes

#: What became of a run that could not say so itself.
INTERRUPTED = "interrupted: it was killed, or its host went down"

# How long a host is tried before it is shown as unreachable, in seconds.
PATIENCE = 8.0


@dataclass
class ClusterReport:
    """A cluster as it was just seen.

    Attributes
    ----------
    name, members, standing
        Of the cluster, its hosts, and how those stand that were created.
    experiment
        What its orchestrator runs or ran last, where that is an experiment.
    ray
        The nodes that Ray has, name → address; None where it does not say.
    """

    name: str
    members: Sequence[ClusterHost]
    standing: Mapping[str, InstanceStatus]
    experiment: RunState | None = None
    ray: dict[str, str] | None = None
    errors: list[RemoteError] = field(default_factory=list)

    @property
    def orchestrator(self) -> ClusterHost | None:
        """The orchestrator, if it was reached."""
        return next((one for one in self.members if one.is_orchestrator and one.report), None)

    @property
    def job(self) -> dict[str, Any] | None:
        """What the supervisor on the orchestrator tells of the run; None if there was none."""
        host = self.orchestrator
        return host.report["runs"].get(self.name) if host is not None else None

    def refresh(self, shown: ClusterDisplay) -> None:
        """Ask all hosts."""

        def look(member: ClusterHost) -> None:
            member.connect(PATIENCE, shown.note)
            member.refresh(self.name)
            runs = member.report["runs"]
            used = runs.get(self.name, {}).get("about", {}).get("environment", "")
            used = used or member.files.recall().environment
            member.refresh(self.name, used)
            if member.is_orchestrator:
                self.ray = ray_service.registered_nodes(self.name, member)
                self.experiment = newest_run(member, self.name) if self.name in runs else None

        self.errors = [one for one in outcomes(look, self.members) if isinstance(one, RemoteError)]
        self.members = sorted(self.members, key=lambda member: order(member.machine.name))

    def strangers(self) -> dict[str, str]:
        """Return the nodes that Ray has and the cluster has not: name → address."""
        service = services.name_of(self.name, ray_node.SERVICE)
        reached = [member for member in self.members if member.report]
        own = {ray_node.node_name(member.report["runs"].get(service, {})) for member in reached}
        own |= {member.machine.name for member in self.members}
        return {name: where for name, where in (self.ray or {}).items() if name not in own}


def status(options: argparse.Namespace) -> int:
    """Show the hosts of one cluster, or of all that were used from here, each as it is known."""
    names = [options.cluster] if options.cluster else recorded_clusters()
    shown = ClusterDisplay()
    if not names:
        shown.console.print("no cluster was used from this machine yet")
    # Many clusters are looked at at once; the errors of their hosts are shown in their tables.
    found = outcomes(
        lambda name: _status(name, shown, options.secrets, alone=len(names) == 1), names
    )
    for one in found:
        if isinstance(one, RemoteError):
            shown.note(str(one))
    return max((code if isinstance(code, int) else 1 for code in found), default=0)


def _status(given: str, shown: ClusterDisplay, secrets: str | None, *, alone: bool) -> int:
    try:
        report = ClusterReport(*standing_of(given, secrets))
    except (ConfigError, RunError) as wrong:
        if alone:
            raise
        raise RemoteError(given, str(wrong)) from None  # the others are shown all the same
    report.refresh(shown)
    with shown.lock:
        shown.console.print(Text(report.name, "bold"))
        table = hosts_table(
            report.name,
            report.members,
            width=shown.console.width,
            standing=report.standing,
            nodes=report.ray,
        )
        shown.console.print(table)
        for text in [*standing_told(report.standing, report.members), *_lines(report)]:
            shown.console.print(text, soft_wrap=True, style="dim")
        for error in report.errors:
            shown.console.print(Text(str(error), "red"), soft_wrap=True)
        if report.errors and not _is_running(report):
            does = "forgets it, if they are gone"
            does = "takes its hosts down, unseen" if report.standing else does
            text = f"flambe down {given} --force   {does}"
            shown.console.print(text, style="dim", soft_wrap=True)
        if not report.members:
            shown.console.print("its hosts do not run", style="dim")
    return 1 if report.errors else 0


def _is_running(report: ClusterReport) -> bool:
    return report.job is not None and report.job["state"] == launch.RUNNING


def _lines(report: ClusterReport) -> list[str]:
    """Return what people want to know of a cluster beside the table of its hosts."""
    lines = [
        f"Ray has {name} ({where}) too, which is not in the cluster: the next run keeps it out"
        for name, where in sorted(report.strangers().items())
    ]
    host = report.orchestrator
    return [*lines, *run_lines(report.name, host, report.experiment)] if host else lines


def run_lines(name: str, host: ClusterHost, experiment: RunState | None) -> list[str]:
    """Return how the run of a cluster stands, and the command that follows it or continues it.

    Parameters
    ----------
    name, host
        The cluster, and its orchestrator as it was looked at.
    experiment
        What its run has written of itself, if it is an experiment.
    """
    job = host.report["runs"].get(name)
    if job is None:
        return ["nothing was run on it yet"]
    command = str(job["about"]["command"])
    running = job["state"] == launch.RUNNING
    lines = [f"{_job_text(job, launch.stopped(host, name))}: {command}"]
    if experiment is not None:
        outcome = experiment.outcome
        if experiment.status is Status.RUNNING and not running:
            outcome = Status.INTERRUPTED.value  # it could not write that itself
        lines.append(f"{plain(experiment.name)}: {outcome}, {counted_variants(experiment)}")
        if not running and experiment.status is not Status.FINISHED:
            lines.append(f"  to continue:   {resuming(command)}")
    if running:
        lines.append(f"  to follow it:   flambe logs {name} -f")
    return lines


def _job_text(job: Mapping[str, Any], stopped_by: str) -> str:
    """Return how a run stands, as its supervisor saw it."""
    if job["state"] == launch.RUNNING:
        return f"running for {took(job['started_ago'])}, started by {launch.who(job)}"
    if "code" not in job:
        return f"the last run was {INTERRUPTED}"
    ago = took(job["ended_ago"])
    if job["code"] and stopped_by:
        return f"the last run was stopped {ago} ago by {stopped_by.partition(':')[0]}"
    if job["code"] > 128:  # by a signal
        return f"the last run was interrupted {ago} ago: it was killed (exit code {job['code']})"
    return f"the last run ended {ago} ago with exit code {job['code']}"


def resuming(command: str) -> str:
    """Return the command that continues a run that a command started."""
    words = [word for word in shlex.split(command) if word != "--force"]
    if not any(word.startswith("--resume") for word in words):
        words.append("--resume")
    return shlex.join(words)


# Prints the newest state of a run in some folders, if there is one.
_NEWEST = """\
for one; do ls -1dt "$one"output__*/state.json "$one"*/output__*/state.json; done 2>/dev/null |
head -n 1 | while IFS= read -r one; do cat "$one"; done"""


def newest_run(host: ClusterHost, name: str) -> RunState | None:
    """Return the state of the experiment that a cluster runs or ran last; None if it was none."""
    started = host.report["runs"].get(name, {}).get("started", 0.0)
    try:
        folders = list(fetch.results(host, name))
        text = host.run(["sh", "-c", _NEWEST, "sh", *folders], repeat=True).stdout
        run = read_state_text(text)
    except (FlambeError, ValueError, TypeError, KeyError, RecursionError):
        return None
    # Else it was of an earlier run.
    return run if (run.started or 0.0) >= started else None


def counted_variants(run: RunState) -> str:
    """Return ``3 of 12 variants done``, of all stages."""
    stages = [stage for stage in run.stages if stage.runs]
    done = sum(n for s in stages for status, n in s.counts.items() if status in _DONE)
    planned = sum(stage.total - stage.counts.get(Status.MASKED.value, 0) for stage in stages)
    failed = f", {run.failed} failed" if run.failed and run.status is not Status.FINISHED else ""
    return f"{done} of {planned} variants done{failed}"


_DONE = {status.value for status in Status if status.done}
