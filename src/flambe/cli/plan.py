"""``flambe plan`` and ``--dry-run``: what would be made, sent and run; nothing is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from flambe.cli.display import print_plan
from flambe.cli.terminal import console
from flambe.compile import Schema
from flambe.errors import RemoteError
from flambe.progress import RunFolder, objects, read_lines

if TYPE_CHECKING:
    from flambe.experiment import Experiment
    from flambe.experiment.variants.lineage import EarlierResults

PATIENCE = 5.0  # seconds to ask a host


def dry_run(
    cluster: Any,
    extensions: dict[str, str],
    root: Schema | None = None,
    experiment: Experiment | None = None,
    config: str = "",
    *,
    resume: bool = False,
) -> int:
    """Say what would be made, sent and run on a cluster.

    Parameters
    ----------
    cluster
        The cluster, outlined.
    extensions
        Those of the file that would be run.
    root
        Its blueprint; none for the cluster alone.
    experiment
        The outline of it, where it is an ``!Experiment``.
    config, resume
        As in the command.
    """
    from flambe.cli.targets import own_errors
    from flambe.cluster import job
    from flambe.cluster.environment import environment
    from flambe.experiment.devices import refuse_too_large
    from flambe.packaging import closure, wheel

    shown = console()

    def say(title: str, text: str) -> None:
        shown.print(Text.assemble((f"{title:<13}", "bold"), text), soft_wrap=True)

    with own_errors(cluster):
        found, missing = cluster.find_machines(), cluster.missing_machines()
    offers = _offers(cluster, found, missing)
    if experiment is not None:
        refuse_too_large(experiment.devices, offers)
    say("hosts", ", ".join(f"{m.name} ({m.address})" for m in found) or "none yet")
    if missing:
        say("to be made", ", ".join(missing))
    for title, text in cluster.planned():
        say(title, text)
    for command in cluster.setup_cmds:
        say("setup", command)
    needs = job.distributions_of(extensions)
    if root is not None:
        needs = job.needs(root, extensions)
    roots = environment.roots_of(cluster.environment, needs)
    wheels = [wheel.wheel_of(root.partition("[")[0]) for root in roots]
    size = sum(one.path.stat().st_size for one in wheels)
    told = ", ".join(f"{one.name} {one.version} ({one.content[:8]})" for one in wheels)
    say("code", f"{told}: {_size(size)}, sent once")
    say("packages", _packages(cluster, len(closure.compute_closure(roots).versions)))
    resume = experiment is not None and (resume or bool(experiment.resume))
    host, way = None, ""
    used = not cluster.local.recall().is_empty
    try:
        # Who was never there has nothing to ask.
        if config and found and (used or resume):
            host = _asked(cluster, found)
            way = _in_the_way(cluster, host) if used else ""
    except RemoteError as error:
        way = f"nobody knows: {error.message.splitlines()[0]}" if used else ""
    if way:
        say("in the way", way)
    if config:
        say("run", f"flambe {config}, on the orchestrator")
    if experiment is not None:
        _experiment(experiment, offers, say)
        if resume:
            earlier = _earlier(cluster, host, experiment) if host is not None else None
            say("reused", _reused(experiment, earlier))
    shown.print("nothing was touched", style="dim")
    return 0


def _asked(cluster: Any, machines: Sequence[Any]) -> Any:
    """Return the orchestrator of these machines, to be asked.

    Raises
    ------
    RemoteError
        If it cannot be reached.
    """
    from flambe.cluster.cluster_host import ClusterHost

    host = ClusterHost(machines[0], cluster.local, cluster.remote_dir)
    host.connect(PATIENCE)
    return host


def _in_the_way(cluster: Any, host: Any) -> str:
    """Return what runs on the cluster, or nothing."""
    from flambe.cluster import job

    if host.run(["test", "-e", host.agent.path], check=False).code:  # asking would bring it
        return ""
    running = host.refresh(cluster.name)["runs"].get(cluster.name)
    if running is None or running["state"] != job.RUNNING:
        return ""
    return f"{job.busy(running)}\n  --force would stop it"


def plan_here(root: Schema, experiment: Experiment, *, resume: bool = False) -> int:
    """Say what an experiment would run on this machine."""
    from flambe.experiment.storage.output_folder import output_folder
    from flambe.experiment.variants.lineage import EarlierResults

    print_plan(root)
    folder = RunFolder(output_folder(experiment.spec()))
    if folder.variants.exists():
        told = _reused(experiment, EarlierResults.read(read_lines(folder.variants)))
        console().print(told if resume or experiment.resume else f"with --resume: {told}")
    console().print("nothing was touched", style="dim")
    return 0


def _packages(cluster: Any, count: int) -> str:
    options = cluster.environment
    if options.system:
        return f"those of the hosts' own Python, which must have {count}"
    how = "sent from here" if options.offline else "downloaded by the orchestrator"
    return f"{count}, in the versions that are installed here, {how}"


def _experiment(experiment: Any, offers: Mapping[str, Mapping[str, float]], say: Any) -> None:
    from flambe.experiment.cluster_setup import local_resources
    from flambe.experiment.plan import plan_stages

    spec = experiment.spec()
    for name, path in local_resources(spec).items():
        say("resource", f"{name}: {path}, {_size(_bytes(path))}, sent once")
    # How many variants run at a time is known from the last time that the cluster was ready.
    slots = _slots(list(offers.values()), experiment.devices)
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("stage", "component", "links to", "variants", "waves"):
        table.add_column(title)
    for row in plan_stages(spec):
        waves = str(math.ceil(row.count / slots)) if slots and row.runs else ""
        table.add_row(row.stage, row.component, ", ".join(row.links), row.variants, waves)
    told = f"{slots} variants at a time" if slots else "not known before the cluster is ready"
    say("slots", told)
    console().print(table)


def _offers(
    cluster: Any, found: Sequence[Any], missing: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return what each worker of a cluster offers, as known from the last time that it was ready.

    Nothing, if that is not known, or the file has other hosts now.
    """
    record = cluster.local.recall()
    recorded = {machine.name: str(machine.private) for machine in record.machines}
    machines = {machine.name: str(machine.private) for machine in found}
    machines.update(dict.fromkeys(missing, ""))
    if set(recorded) != set(machines) or (cluster.lasting and recorded != machines):
        return {}
    return {worker.name: {"cpu": worker.cpu, "gpu": worker.gpu} for worker in record.workers}


def _slots(offers: Sequence[Mapping[str, float]], devices: Mapping[str, float] | None) -> int:
    """Return how many variants run at a time on hosts that offer so much each."""
    if devices is None:
        gpus = any(offer.get("gpu") for offer in offers)
        devices = {"cpu": 1.0, "gpu": 1.0} if gpus else {"cpu": 1.0}
    needed = {name: amount for name, amount in devices.items() if amount}
    shares = [[offer.get(n, 0.0) / amount for n, amount in needed.items()] for offer in offers]
    return sum(int(min(share, default=0.0)) for share in shares)


def _earlier(cluster: Any, host: Any, experiment: Any) -> EarlierResults:
    """Return the results of earlier runs on the cluster; none, if there are none."""
    from flambe.experiment.cluster_setup import results_path
    from flambe.experiment.variants.lineage import EarlierResults

    try:
        text = host.read(f"{results_path(cluster.context, experiment.spec())}/variants.jsonl")
    except RemoteError:
        text = ""
    return EarlierResults.read(objects(text.splitlines()))


def _reused(experiment: Any, earlier: EarlierResults | None) -> str:
    from flambe.experiment.plan import find_resumable, plan_stages
    from flambe.experiment.variants.lineage import EarlierResults

    spec = experiment.spec()
    # What "reduce" will leave out is not known, but how many that are.
    total = sum(stage.count for stage in plan_stages(spec) if stage.runs)
    found = find_resumable(spec, earlier or EarlierResults({}))
    text = f"{found.done} of {total} variants are done"
    text += f", {found.begun} go on from their checkpoints" if found.begun else ""
    for changes, count in found.stale.items():
        text += f"\n  {count} have stale results and are run again: {changes}"
    return text


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
