"""``flambe plan`` and ``--dry-run``: what would be created, sent and run; nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from flambe.cli.display import print_stages
from flambe.cli.terminal import console
from flambe.compile import Schema
from flambe.errors import RemoteError
from flambe.progress import RunFolder, format_duration

if TYPE_CHECKING:  # imported when a plan is made
    from flambe.cluster.cluster import Cluster
    from flambe.cluster.cluster_host import ClusterHost
    from flambe.cluster.machine import Machine
    from flambe.experiment import Experiment
    from flambe.experiment.planning.earlier import EarlierRuns
    from flambe.experiment.planning.plan import Plan
    from flambe.experiment.spec import ExperimentSpec
    from flambe.remote import Host

CONNECT_SECONDS = 5.0  # to ask the orchestrator what runs there
DONE = "no changes were made"


@dataclass(frozen=True)
class PlanOptions:
    """What of the command matters for a plan.

    Attributes
    ----------
    config
        The file.
    resume, force, use_stale
        Whether the run would resume, start over, or use stale results.
    as_json
        Whether JSON is printed.
    """

    config: str = ""
    resume: bool = False
    force: bool = False
    use_stale: bool = False
    as_json: bool = False


class _Report:
    """What is printed of a plan: lines at once, or JSON at its end."""

    def __init__(self, *, as_json: bool) -> None:
        self.screen = console()
        self.as_json = as_json
        self.content: dict[str, object] = {}

    def entry(self, title: str, text: str, **content: object) -> None:
        """Add an entry; in JSON it is the content, or the text."""
        self.content |= content or {title.replace(" ", "_"): text}
        if not self.as_json:
            line = Text.assemble((f"{title:<13}", "bold"), text)
            self.screen.print(line, soft_wrap=True)

    def plan(self, plan: Plan) -> None:
        """Add what becomes of the variants."""
        self.content |= plan.as_json()
        if not self.as_json:
            print_stages(self.screen, plan)

    def end(self) -> None:
        """Print what is left to be printed."""
        if self.as_json:
            print(json.dumps(self.content, indent=1, ensure_ascii=False))
        else:
            self.screen.print(DONE, style="dim")


def dry_run(
    cluster: Cluster,
    extensions: dict[str, str],
    root: Schema | None = None,
    experiment: Experiment | None = None,
    options: PlanOptions | None = None,
) -> int:
    """Print what would be created, sent and run on a cluster.

    Parameters
    ----------
    cluster
        The cluster, outlined.
    extensions
        The extensions of the file that would be run.
    root
        The blueprint of that file; none for the cluster alone.
    experiment
        Its outline, if it is an ``!Experiment``.
    options
        As in the command.
    """
    from flambe.cli.targets import user_errors
    from flambe.experiment.devices import refuse_too_large

    options = options or PlanOptions()
    report = _Report(as_json=options.as_json)
    with user_errors(cluster):
        machines, missing = cluster.find_machines(), cluster.missing_machines()
    offers = _worker_offers(cluster, machines, missing)
    if experiment is not None:
        refuse_too_large(experiment.devices, offers)
    _report_hosts(report, cluster, machines, missing)
    _report_code(report, cluster, extensions, root)
    host, obstacle = None, ""
    if options.config:
        host, obstacle = _find_obstacle(cluster, machines, resume=options.resume)
    if obstacle:
        report.entry("in the way", obstacle)
    if options.config:
        report.entry("run", f"flambe {options.config}, on the orchestrator")
    if experiment is not None:
        from flambe.experiment.planning.earlier import EarlierRuns
        from flambe.experiment.planning.plan import make_plan

        spec, earlier = experiment.spec(), EarlierRuns()
        if host is not None and not options.force:
            earlier = _read_earlier(cluster, host, spec, _secrets(experiment))
        _report_resources(report, spec)
        slots = _slots(list(offers.values()), experiment.devices)
        plan = make_plan(spec, earlier, slots=slots, use_stale=options.use_stale)
        unknown = "not known until the cluster is ready"
        report.entry("slots", f"{_variants(slots)} at a time" if slots else unknown, slots=slots)
        report.plan(plan)
        _report_unseen(report, earlier.problem)
        _report_time(report, plan, options)
        _report_cost(report, plan, cluster.hourly_price())
    report.end()
    return 0


def _report_hosts(
    report: _Report, cluster: Cluster, machines: Sequence[Machine], missing: Sequence[str]
) -> None:
    """Add which hosts there are, and which would be created."""
    addresses = ", ".join(f"{m.name} ({m.address})" for m in machines)
    report.entry("hosts", addresses or "none yet", hosts=[m.name for m in machines])
    if missing:
        report.entry("to create", ", ".join(missing), to_create=list(missing))
    for title, text in cluster.planned():
        report.entry(title, text)
    for command in cluster.setup_cmds:
        report.entry("setup", command, setup=list(cluster.setup_cmds))


def _report_resources(report: _Report, spec: ExperimentSpec) -> None:
    """Add which resources would be sent, and their sizes."""
    from flambe.experiment.cluster_setup import local_resources

    sizes: dict[str, int] = {}
    for name, path in local_resources(spec).items():
        sizes[name] = _bytes(path)
        text = f"{name}: {path}, {_size(sizes[name])}, sent once"
        report.entry("resource", text, resource_bytes=dict(sizes))


def _report_time(report: _Report, plan: Plan, options: PlanOptions) -> None:
    """Add how long it takes, as far as earlier runs tell; and how to get what is planned."""
    if plan.has_earlier:
        report.entry("reused", plan.summary())
    seconds, untimed = plan.seconds, plan.untimed
    if seconds is not None and any(stage.run for stage in plan.stages):
        text = f"about {format_duration(seconds)}, if variants take what they took before"
        text += f"; not counted: {', '.join(untimed)}" if untimed else ""
        report.entry("time", text, seconds=seconds)
    if plan.has_earlier and not options.resume:
        text = "there are earlier results: --resume runs what is planned here, --force starts over"
        report.entry("note", text)


def _report_cost(report: _Report, plan: Plan, hourly: float | None) -> None:
    """Add what it costs, where the cluster has prices."""
    if hourly is None:
        return
    text = f"{hourly:.2f} per hour for all hosts"
    seconds, cost = plan.seconds, None
    if seconds is not None and not plan.untimed:
        cost = hourly * seconds / 3600
        text = f"about {cost:.2f}, and what hosts cost while they start and are idle: {text}"
    report.entry("cost", text, hourly_price=hourly, cost=cost)


def _report_code(
    report: _Report, cluster: Cluster, extensions: dict[str, str], root: Schema | None
) -> None:
    """Add which wheels and packages the hosts would get."""
    from flambe.cluster import job
    from flambe.cluster.environment import environment
    from flambe.packaging import closure, wheel

    needs = (
        job.extension_distributions(extensions)
        if root is None
        else job.required_distributions(root, extensions)
    )
    roots = environment.roots_of(cluster.environment, needs)
    wheels = [wheel.wheel_of(name.partition("[")[0]) for name in roots]
    size = sum(wheel.path.stat().st_size for wheel in wheels)
    names = ", ".join(f"{w.name} {w.version} ({w.content[:8]})" for w in wheels)
    report.entry("code", f"{names}: {_size(size)}, sent once", code_bytes=size, code=names)
    count = len(closure.compute_closure(roots).versions)
    if cluster.environment.system:
        packages = f"those of the hosts' own Python, which must have {count}"
    else:
        is_offline = cluster.environment.offline
        source = "sent from here" if is_offline else "downloaded by the orchestrator"
        packages = f"{count}, in the versions that are installed here, {source}"
    report.entry("packages", packages)


def _find_obstacle(
    cluster: Cluster, machines: Sequence[Machine], *, resume: bool
) -> tuple[ClusterHost | None, str]:
    """Return the orchestrator, if it can be asked, and the run that is in progress there.

    A cluster that was never used from this machine is asked only where earlier results count.
    """
    was_used = not cluster.local.recall().is_empty
    if not machines or not (was_used or resume):
        return None, ""
    try:
        host = _connect_orchestrator(cluster, machines)
        return host, _running_job(cluster, host) if was_used else ""
    except RemoteError as error:
        return None, f"unknown: {error.message.splitlines()[0]}" if was_used else ""


def _connect_orchestrator(cluster: Cluster, machines: Sequence[Machine]) -> ClusterHost:
    """Return the orchestrator, connected.

    Raises
    ------
    RemoteError
        If it cannot be reached.
    """
    from flambe.cluster.cluster_host import ClusterHost

    host = ClusterHost(machines[0], cluster.local, cluster.remote_dir)
    host.connect(CONNECT_SECONDS)
    return host


def _running_job(cluster: Cluster, host: ClusterHost) -> str:
    """Return what runs on the cluster, or nothing."""
    from flambe.cluster import job

    # Without an agent nothing can run, and asking would install one.
    if host.run(["test", "-e", host.agent.path], check=False).code:
        return ""
    run = host.refresh(cluster.name).runs.get(cluster.name)
    if run is None or not run.runs:
        return ""
    return f"{job.describe_active(run)}\n  --force would stop it"


def plan_here(experiment: Experiment, options: PlanOptions) -> int:
    """Print what an experiment would run on this machine."""
    from flambe.experiment.devices import local_capacity
    from flambe.experiment.planning.earlier import EarlierRuns, read_folder
    from flambe.experiment.planning.plan import make_plan
    from flambe.experiment.storage.output_folder import output_folder

    report = _Report(as_json=options.as_json)
    spec = experiment.spec()
    earlier = EarlierRuns() if options.force else read_folder(spec, _secrets(experiment))
    slots = _slots([local_capacity()], experiment.devices)
    plan = make_plan(spec, earlier, slots=slots, use_stale=options.use_stale)
    report.plan(plan)
    report.entry("results", str(output_folder(spec)))
    _report_unseen(report, earlier.problem)
    report.entry("slots", f"{_variants(slots)} at a time on this machine", slots=slots)
    _report_time(report, plan, options)
    report.end()
    return 0


def _secrets(experiment: Experiment) -> str:
    """Return the file of secrets: its variables open a bucket."""
    from flambe.runnable import Secrets

    return experiment.config.origin if isinstance(experiment.config, Secrets) else ""


def _report_unseen(report: _Report, problem: str) -> None:
    """Add why checkpoints could not be looked at, if that is so."""
    if problem:
        text = f"{problem}\n  checkpoints are taken to be where earlier runs recorded them"
        report.entry("unchecked", text)


def _variants(count: int) -> str:
    return "1 variant" if count == 1 else f"{count} variants"


def _worker_offers(
    cluster: Cluster, machines: Sequence[Machine], missing: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return what each worker of a cluster offers, as recorded when it was last ready.

    Empty, if there is no record, or the file now has other hosts.
    """
    record = cluster.local.recall()
    recorded = {machine.name: str(machine.private) for machine in record.machines}
    current = {machine.name: str(machine.private) for machine in machines}
    current.update(dict.fromkeys(missing, ""))
    if set(recorded) != set(current) or (cluster.lasting and recorded != current):
        return {}
    return {worker.name: {"cpu": worker.cpu, "gpu": worker.gpu} for worker in record.workers}


def _slots(offers: Sequence[Mapping[str, float]], devices: Mapping[str, float] | None) -> int:
    """Return how many variants run at a time on hosts with these offers."""
    if devices is None:
        gpus = any(offer.get("gpu") for offer in offers)
        devices = {"cpu": 1.0, "gpu": 1.0} if gpus else {"cpu": 1.0}
    needed = {name: amount for name, amount in devices.items() if amount}
    shares = [[offer.get(n, 0.0) / amount for n, amount in needed.items()] for offer in offers]
    return sum(int(min(share, default=0.0)) for share in shares)


def _read_earlier(
    cluster: Cluster, host: ClusterHost, spec: ExperimentSpec, secrets: str
) -> EarlierRuns:
    """Return what earlier runs on the cluster left."""
    from flambe.experiment.cluster_setup import results_path
    from flambe.experiment.planning.earlier import parse

    folder = RunFolder(Path(results_path(cluster.context, spec)))
    texts = []
    for path in (folder.variants, folder.lineage):
        try:
            texts.append(host.read(path.as_posix()))
        except RemoteError:
            texts.append("")
    journal, record = texts
    manifests = list_manifests(host, folder) if journal else None
    return parse(spec, journal, record, manifests, secrets)


def list_manifests(host: Host, folder: RunFolder) -> str | None:
    """Return the paths of all manifests of checkpoints in the folder of a run on a host."""
    at_depth = ["-mindepth", "4", "-maxdepth", "4", "-path", "*/checkpoint*/manifest.json"]
    find = ["find", folder.root.as_posix(), *at_depth, "-printf", r"%P\n"]
    done = host.run(find, check=False)
    return done.stdout if done.code == 0 else None


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
