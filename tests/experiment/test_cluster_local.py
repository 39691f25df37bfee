"""The same file here and on a cluster of this machine's own processes: what is learned is the same."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flambe.progress import RunFolder, Status, read_invocations
from flambe.remote.agent import supervisor
from tests.experiment.buckets import NAME, Bucket
from tests.experiment.farm import Farm, eventually, figures, layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("local-experiment")]
LEARNING = """
dataset: !SklearnDataset
  name: digits
model: !Classifier
  encoder: !MLPEncoder
    input_size: !@ dataset.n_features
    output_size: !g [16, 32]
    dropout: 0.3
  n_classes: !@ dataset.n_classes
train: !Trainer
  dataset: !@ dataset
  model: !@ model
  train_sampler: !BaseSampler
    batch_size: 64
    shuffle: true
  val_sampler: !BaseSampler
  loss_fn: !torch.CrossEntropyLoss
  metric_fn: !Accuracy
  optimizer: !torch.Adam
    params: !@ train[model].trainable_params
    lr: !g [0.003, 0.01]
  max_steps: 3
evaluate: !Evaluator
  dataset: !@ dataset
  model: !@ train[model]
  metric_fn: !Accuracy
"""
GROWING = "grow: !crops.Growth {rate: !g [0.1, 0.2], steps: 200, seconds: 0.25}"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with contextlib.closing(Farm(tmp_path_factory.mktemp("farm"))) as farm:
        yield farm


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_plan_says_everything_and_touches_nothing(farm: Farm) -> None:
    (farm.folder / "table.txt").write_text("x" * 3000)
    file = farm.write(
        "planned",
        "grow: !crops.Growth {rate: !g [0.1, 0.2, 0.3, 0.4, 0.5]}\n"
        "harvest: !crops.Harvest {of: !@ grow}",
        more="resources: {table: table.txt}\nreduce: {grow: 2}",
    )
    home = Path(farm.env["FLAMBE_HOME"])
    before = files_below(farm.folder)
    commands: list[list[str | Path]] = [["plan", file], [file, "--dry-run"]]
    for command in commands:
        told = farm.flambe(*command)
        assert re.search(r"grow .* 5", told), told
        assert "no changes were made" in told
        told = farm.flambe(*command, "--cluster", farm.cluster)
        assert re.search(r"grow .* 5", told), told
        assert re.search(r"table: .*table.txt, 3 KiB, sent once", told), told
        assert "orchestrator" in told
        assert re.search("crops 1.0", told)
    # Logs of the command itself, and wheels that were looked at, are kept here; hosts there are none.
    new = {
        path for path in files_below(farm.folder) - before if "output" in path or "hosts" in path
    }
    assert new == set()
    assert not (home / "clusters" / farm.name / "hosts").exists()


def test_the_site_is_there_for_those_who_come_back_and_a_taken_port_is_told(farm: Farm) -> None:
    # The ports are taken before the cluster is provisioned: this is the first test that does so.
    if Path(farm.env["FLAMBE_HOME"], "clusters", farm.name).exists():
        farm.flambe("down", farm.cluster, "--force")  # its site has them
    taken = []
    for port in (49556, 49558):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
            one.listen()
        except OSError:  # somebody else has it, which is as good
            one.close()
        else:
            taken.append(one)
    try:
        run = farm.run(farm.write("watched", GROWING))
        run.says(r"port 49558 of the orchestrator is taken: the Report Site is at \d+")
        run.says(r"port 49556 of the orchestrator is taken: TensorBoard is at \d+")
        url = run.says(r"Report Site: (http\S+)").split()[-1]
        run.says("step 2 of", times=2)
        with httpx.Client(trust_env=False, timeout=60, follow_redirects=True) as client:
            assert client.get(url).status_code == 200
            base = url.partition("/?")[0]

            def runs() -> bool:
                answer = client.get(f"{base}/tensorboard/app/data/runs")
                return answer.status_code == 200 and any("grow/" in one for one in answer.json())

            eventually(runs, "TensorBoard knows the variants")
        run.kill()
        site = farm.start("site", farm.name)
        url = site.says(r"Report Site of \S+: (http\S+)").split()[-1]
        with httpx.Client(trust_env=False, timeout=60, follow_redirects=True) as client:
            assert client.get(url).status_code == 200
        site.kill()
        folder = farm.output("watched")
        steps = max(one.step for one in folder.read_variants().values())
        eventually(
            lambda: max(one.step for one in folder.read_variants().values()) > steps,
            "the run goes on without its client",
        )
        farm.flambe("stop", farm.name)
        state = folder.read_state()
        assert state is not None
        assert state.status is Status.INTERRUPTED
    finally:
        for one in taken:
            one.close()
    assert os.path.isdir(folder.root)


def test_what_is_learned_is_the_same(farm: Farm) -> None:
    file = farm.write("learning", LEARNING, more="seed: 3\nreduce:\n  train: 2")
    alone = farm.start(file, OMP_NUM_THREADS="1")
    said = farm.run(file, OMP_NUM_THREADS="1").ends()
    alone.ends()
    assert "the run has ended" in said
    here = RunFolder(farm.folder / "flambe-output" / "output__learning")
    there = farm.fetched("learning")
    assert figures(here) == figures(there)
    assert layout(here) == layout(there)
    trained = [one for one in there.read_variants().values() if one.stage == "train"]
    assert len({one.metric for one in trained}) > 1
    assert all(one.step == 3 and one.status is Status.FINISHED for one in trained)
    # What is planned knows the hosts now, and what could be used again.
    told = farm.flambe("plan", file, "--cluster", farm.cluster, "--resume")
    assert "4 variants at a time" in told
    assert "6 of 6 variants are done" in told
    # A variant that is too large for all of them is refused by what is known of them, and there.
    large = farm.write("large", LEARNING, more="devices: {cpu: 3}")
    refused = "a variant needs 3 cpu, and no host has that: factory_1 has 2 cpu, 0 gpu, factory_2"
    assert refused in farm.flambe("plan", large, "--cluster", farm.cluster, code=2)
    assert refused in farm.run(large).ends(2)


@pytest.mark.long
def test_overrides_parts_and_variables_reach_the_cluster(farm: Farm) -> None:
    (farm.folder / "rates.yaml").write_text("!g [0.1, 0.2]\n")
    pipeline = "grow: !crops.Growth {rate: !include rates.yaml, size: !env GROWTH_SIZE}"
    file = farm.write("overridden", pipeline)
    overrides = ["grow.steps=2", "seeds=2", "grow.padding=!env {name: GROWTH_NONE, default: 3}"]
    farm.run(file, *overrides, GROWTH_SIZE="5").ends(seconds=500)
    folder = farm.output("overridden")
    variants = list(folder.read_variants().values())
    assert [(v.choices["rate"], v.seed, v.step) for v in variants] == [
        (rate, seed, 2) for rate in (0.1, 0.2) for seed in (0, 1)
    ]
    for variant in variants:  # the hosts have no such variable
        text = (folder.variant("grow", variant.name) / "config.yaml").read_text()
        assert "size: 5" in text
        assert "padding: 3" in text
    [start] = read_invocations(folder.invocations)
    assert start.overrides == overrides
    assert start.seeds == [0, 1]
    assert "!include rates.yaml" in start.config
    assert "rate: !g [0.1, 0.2]" in start.resolved
    job = farm.state / "job"
    assert (job / "config.yaml").exists()
    assert not list(job.rglob("values.json"))  # removed when the run has ended


@pytest.mark.long
def test_a_run_that_finished_without_some_says_so_there_and_here(farm: Farm) -> None:
    pipeline = "grow: !crops.Trouble {rate: !g [0.1, 0.2, 0.3], trouble: 0.2}"
    more = "max_failures: 0\nstop_on_failure: false"
    said = farm.run(farm.write("partly", pipeline, more=more)).ends(code=1)
    assert "partly finished with 1 failed in " in said
    assert "blight at step 2" in said
    assert "the run ended with exit code 1" in said
    status = farm.flambe("status", farm.cluster)
    assert "partly: finished with 1 failed, 2 of 3 variants done" in status
    assert re.search(r"orchestrator .* head +ready", status), status
    assert re.search(r"factory_1 .* joined +ready", status), status
    assert re.search(r"the last run ended [\d.]+ s ago with exit code 1: \S+ .*partly.yaml", status)
    farm.flambe("logs", farm.cluster, "-f", code=1)


def test_results_in_a_place_of_their_own_are_fetched_too(farm: Farm) -> None:
    place = farm.folder / "beside"
    pipeline = "grow: !crops.Growth {rate: !g [0.1, 0.2], steps: 3}"
    file = farm.write("apart", pipeline, more=f"save_path: {place}")
    farm.run(file, "--fetch", "streamed").ends()
    farm.flambe("fetch", farm.name, "fetched")
    there = RunFolder(place / "output__apart")
    assert [one.status for one in there.read_variants().values()] == [Status.FINISHED] * 2
    for folder in ("streamed", "fetched"):
        here = RunFolder(farm.folder / folder / str(place).strip("/") / "output__apart")
        assert figures(here) == figures(there)
        assert layout(here) == layout(there)
    told = farm.flambe("plan", file, "--cluster", farm.cluster, "--resume")
    assert "2 of 2 variants are done" in told


@pytest.mark.long
def test_checkpoints_go_to_a_bucket_from_every_host(farm: Farm) -> None:
    secrets = farm.folder / "secrets.ini"
    with contextlib.closing(Bucket(farm.folder / "bucket.log")) as bucket:
        lines = "".join(f"{name} = {value}\n" for name, value in bucket.variables.items())
        secrets.write_text(f"[flambe]\nfactories = environment\n[environment]\n{lines}")
        secrets.chmod(0o600)
        pipeline = (
            "grow: !crops.Growth {rate: !g [0.1, 0.2, 0.3], steps: 3}\n"
            "harvest: !crops.Harvest {of: !@ grow}"
        )
        file = farm.write("stored", pipeline, more=f"storage: s3://{NAME}")
        text = farm.run(file, "--secrets", str(secrets)).ends()
        assert f"checkpoints  s3://{NAME}/output__stored" in text
        there = bucket.keys("output__stored/")
        folder = farm.output("stored")
        assert sum(key.endswith("/checkpoint/manifest.json") for key in there) == 6
        assert not list(folder.root.rglob("checkpoint*"))
        assert {one.status for one in folder.read_variants().values()} == {Status.FINISHED}
        wrong = farm.write("wrong", pipeline, more="storage: s3://no-such-bucket")
        refused = farm.run(wrong, "--secrets", str(secrets)).ends(2)
        assert "storage: s3://no-such-bucket/output__wrong cannot be used" in refused
        assert "AWS_ACCESS_KEY_ID" in refused


def test_results_come_here_as_they_are_made(farm: Farm) -> None:
    file = farm.write("stream", GROWING.replace("200", "60"))
    refused = farm.flambe(file, "--fetch", code=2)
    assert "--fetch requires --cluster" in refused
    run = farm.run(file, "--fetch", "here")
    here = RunFolder(farm.folder / "here" / "flambe-output" / "output__stream")
    eventually(lambda: list(here.root.glob("grow/*/metrics.jsonl")), "figures come here")
    assert run.process.poll() is None
    assert here.read_state() is not None
    assert "the results of" in run.ends()
    assert figures(here) == figures(farm.output("stream"))
    assert layout(here) == layout(farm.output("stream"))
    # Whoever comes later has them too.
    farm.flambe("fetch", farm.cluster, "there", "--follow")
    there = RunFolder(farm.folder / "there" / "flambe-output" / "output__stream")
    assert figures(there) == figures(here)


@pytest.mark.long
@pytest.mark.faults
@pytest.mark.parametrize("reached", [True, False])
def test_a_host_that_leaves_takes_no_trials(farm: Farm, reached: bool) -> None:
    pipeline = "grow: !crops.Growth {rate: !g [0.1, 0.2, 0.3, 0.4], steps: 2, seconds: 0.5}"
    farm.write_cluster()
    server = 0
    try:
        for name, factories, hosts in (
            ("both", 2, {"factory_1", "factory_2"}),
            ("one", 1, {"factory_1"}),
        ):
            farm.write_cluster(factories_num=factories)
            said = farm.run(farm.write(name, pipeline), "--force").ends()
            assert {one.host for one in farm.output(name).read_variants().values()} == hosts
            if factories == 2 and not reached:
                # Its server hangs; its Ray node would go on.
                folder = Path(farm.env["FLAMBE_HOME"]) / "clusters" / farm.name / "hosts/factory_2"
                status = supervisor.status(str(folder), "server")
                assert status is not None
                server = status.pid
                os.kill(server, signal.SIGSTOP)
        assert ("no longer in the file; cleaned" in said) == reached
        assert "factory_2" not in farm.flambe("status", farm.cluster)
    finally:
        if server:
            os.kill(server, signal.SIGCONT)
        farm.write_cluster()


@pytest.mark.long
def test_a_cluster_of_one_machine_whose_orchestrator_works(tmp_path: Path) -> None:
    more = {"factories_num": 0, "orchestrator_works": True}
    with contextlib.closing(Farm(tmp_path, None, **more)) as farm:
        farm.name = f"alone-{os.getpid()}"
        farm.write_cluster()
        secrets = tmp_path / "secrets.ini"
        secrets.write_text("[flambe]\nfactories = environment\n[environment]\nWORD = canary-1\n")
        secrets.chmod(0o600)
        pipeline = "grow: !crops.Growth {rate: !g [0.1, 0.2, 0.3], steps: 2}"
        said = farm.run(farm.write("alone", pipeline), "--secrets", str(secrets)).ends()
        assert "is lost" not in said
        assert "no factory is left" not in said
        variants = farm.output("alone").read_variants().values()
        assert [(one.status, one.host) for one in variants] == [
            (Status.FINISHED, "orchestrator")
        ] * 3
        assert not list(Path(farm.env["FLAMBE_HOME"]).rglob("secrets.ini"))
        told = farm.flambe("plan", farm.folder / "alone.yaml", "--cluster", farm.cluster)
        assert "2 variants at a time" in told
