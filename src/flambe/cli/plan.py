"""``flambe plan`` and ``--dry-run``: what would be created, sent and run; nothing is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from flambe.cli.display import print_plan
from flambe.cli.terminal import TextConsole, console
from flambe.compile import Schema
from flambe.errors import RemoteError
from flambe.progress import RunFolder, objects, read_lines

if TYPE_CHECKING:  # imported when a plan is made
    from flambe.cluster.cluster import Cluster
    from flambe.cluster.cluster_host import ClusterHost
    from flambe.cluster.machine import Machine
    from flambe.experiment import Experiment
    from flambe.experiment.variants.lineage import EarlierResults

CONNECT_SECONDS = 5.0  # to ask the orchestrator what runs there
DONE = "nothing was touched"


def dry_run(
    cluster: Cluster,
    extensions: dict[str, str],
    root: Schema | None = None,
    experiment: Experiment | None = None,
    config: str = "",
    *,
    resume: bool = False,
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
    config, resume
        As in the command.
    """
    from flambe.cli.targets import user_errors
    from flambe.experiment.devices import refuse_too_large

    screen = console()
    with user_errors(cluster):
        machines, missing = cluster.find_machines(), cluster.missing_machines()
    offers = _worker_offers(cluster, machines, missing)
    if experiment is not None:
        refuse_too_large(experiment.devices, offers)
    addresses = ", ".join(f"{m.name} ({m.address})" for m in machines)
    _print_entry(screen, "hosts", addresses or "none yet")
    if missing:
        _print_entry(screen, "to create", ", ".join(missing))
    for title, text in cluster.planned():
        _print_entry(screen, title, text)
    for command in cluster.setup_cmds:
        _print_entry(screen, "setup", command)
    _print_code(screen, cluster, extensions, root)
    resume = experiment is not None and (resume or bool(experiment.resume))
    host, obstacle = _find_obstacle(cluster, machines, resume=resume) if config else (None, "")
    if obstacle:
        _print_entry(screen, "in the way", obstacle)
    if config:
        _print_entry(screen, "run", f"flambe {config}, on the orchestrator")
    if experiment is not None:
        _print_experiment(screen, experiment, offers)
        if resume:
            earlier = _read_earlier(cluster, host, experiment) if host is not None else None
            _print_entry(screen, "reused", _reuse(experiment, earlier))
    screen.print(DONE, style="dim")
    return 0


def _print_entry(screen: TextConsole, title: str, text: str) -> None:
    screen.print(Text.assemble((f"{title:<13}", "bold"), text), soft_wrap=True)


def _print_code(
    screen: TextConsole, cluster: Cluster, extensions: dict[str, str], root: Schema | None
) -> None:
    """Print which wheels and packages the hosts would get."""
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
    _print_entry(screen, "code", f"{names}: {_size(size)}, sent once")
    count = len(closure.compute_closure(roots).versions)
    if cluster.environment.system:
        packages = f"those of the hosts' own Python, which must have {count}"
    else:
        is_offline = cluster.environment.offline
        source = "sent from here" if is_offline else "downloaded by the orchestrator"
        packages = f"{count}, in the versions that are installed here, {source}"
    _print_entry(screen, "packages", packages)


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


def plan_here(root: Schema, experiment: Experiment, *, resume: bool = False) -> int:
    """Print what an experiment would run on this machine."""
    from flambe.experiment.storage.output_folder import output_folder
    from flambe.experiment.variants.lineage import EarlierResults

    print_plan(root)
    folder = RunFolder(output_folder(experiment.spec()))
    if folder.variants.exists():
        reuse = _reuse(experiment, EarlierResults.read(read_lines(folder.variants)))
        console().print(reuse if resume or experiment.resume else f"with --resume: {reuse}")
    console().print(DONE, style="dim")
    return 0


def _print_experiment(
    screen: TextConsole, experiment: Experiment, offers: Mapping[str, Mapping[str, float]]
) -> None:
    from flambe.experiment.cluster_setup import local_resources
    from flambe.experiment.plan import plan_stages

    spec = experiment.spec()
    for name, path in local_resources(spec).items():
        _print_entry(screen, "resource", f"{name}: {path}, {_size(_bytes(path))}, sent once")
    # How many variants run at a time is known from the last time that the cluster was ready.
    slots = _slots(list(offers.values()), experiment.devices)
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("stage", "component", "links to", "variants", "waves"):
        table.add_column(title)
    for row in plan_stages(spec):
        waves = str(math.ceil(row.count / slots)) if slots and row.runs else ""
        table.add_row(row.stage, row.component, ", ".join(row.links), row.variants, waves)
    unknown = "not known until the cluster is ready"
    _print_entry(screen, "slots", f"{slots} variants at a time" if slots else unknown)
    screen.print(table)


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


def _read_earlier(cluster: Cluster, host: ClusterHost, experiment: Experiment) -> EarlierResults:
    """Return the results of earlier runs on the cluster; none, if there are none."""
    from flambe.experiment.cluster_setup import results_path
    from flambe.experiment.variants.lineage import EarlierResults

    try:
        text = host.read(f"{results_path(cluster.context, experiment.spec())}/variants.jsonl")
    except RemoteError:
        text = ""
    return EarlierResults.read(objects(text.splitlines()))


def _reuse(experiment: Experiment, earlier: EarlierResults | None) -> str:
    """Return how many variants an earlier run has done, and why others run again."""
    from flambe.experiment.plan import find_resumable, plan_stages
    from flambe.experiment.variants.lineage import EarlierResults

    spec = experiment.spec()
    # "reduce" leaves out a known number of variants, but which ones is not known yet.
    total = sum(stage.count for stage in plan_stages(spec) if stage.runs)
    state = find_resumable(spec, earlier or EarlierResults({}))
    text = f"{state.done} of {total} variants are done"
    text += f", {state.begun} continue from their checkpoints" if state.begun else ""
    for changes, count in state.stale.items():
        text += f"\n  {count} have stale results and run again: {changes}"
    return text


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
