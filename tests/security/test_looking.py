"""What is only looked at is never constructed: validate, plan, --dry-run, and status of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from flambe.cli.main import main
from flambe.compile import Component
from flambe.experiment import Experiment

pytestmark = pytest.mark.integration

HEADER = "psutil: ./psutil\n---\n"
EXPERIMENT = """\
!Experiment
name: looked
{keyword}
pipeline:
  stage: !LookedAt
    size: 1
"""
CLUSTER = """\
!LocalCluster
name: looked
factories_num: 1
{keyword}
"""


class LookedAt(Component):
    built: int = 0

    def __init__(self, size: int) -> None:
        type(self).built += 1

    def run(self) -> bool:
        return False


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pwned"


def popen(keyword: str, mark: Path) -> str:
    return f"{keyword}: !psutil.Popen\n  - [sh, -c, 'touch {mark}; sleep 0.1']"


def experiment(mark: Path, keyword: str) -> str:
    path = mark.with_name("looked.yaml")
    path.write_text(HEADER + EXPERIMENT.format(keyword=popen(keyword, mark)))
    return str(path)


def cluster(mark: Path, keyword: str, header: str = HEADER) -> str:
    path = mark.with_name("cluster.yaml")
    path.write_text(header + CLUSTER.format(keyword=popen(keyword, mark)))
    return str(path)


def plain_cluster(mark: Path) -> str:
    path = mark.with_name("plain.yaml")
    path.write_text(CLUSTER.format(keyword="cpus: 1"))
    return str(path)


@pytest.mark.parametrize("keyword", ["user_provider", "resume", "env", "devices", "seed"])
@pytest.mark.parametrize("command", [["validate"], ["plan"], ["--dry-run"], ["plan", "--resume"]])
def test_a_plan_constructs_nothing(mark: Path, keyword: str, command: list[str]) -> None:
    before = LookedAt.built
    path = experiment(mark, keyword)
    code = main(
        [*command[:1], path, *command[1:]]
        if command[0] in ("validate", "plan")
        else [path, *command]
    )
    assert code in (0, 2)
    assert not mark.exists()
    assert LookedAt.built == before


def test_a_plan_on_a_cluster_constructs_nothing(
    mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment(mark, "user_provider")
    assert main(["plan", path, "--cluster", plain_cluster(mark)]) in (0, 2)
    assert main([path, "--dry-run", "-c", plain_cluster(mark)]) in (0, 2)
    assert not mark.exists()


def test_a_plan_of_what_is_built_on_experiment_constructs_nothing(mark: Path) -> None:
    class LookedExperiment(Experiment):
        def __init__(self, **keywords: object) -> None:
            raise AssertionError("it was constructed")

    path = mark.with_name("looked.yaml")
    path.write_text("!LookedExperiment\nname: x\n")
    assert main(["plan", str(path)]) == 2
    assert main(["validate", str(path)]) == 0


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["validate"],
        ["plan"],
        ["logs"],
        ["stop"],
        ["fetch"],
        ["down"],
        ["exec"],
        ["ssh"],
        [],
    ],
    ids=lambda command: command[0] if command else "run",
)
@pytest.mark.parametrize("keyword", ["gpus", "setup_cmds", "environment", "site", "name"])
def test_the_file_of_a_cluster_is_values(
    mark: Path, keyword: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = cluster(mark, keyword)
    assert main([*command, path, *(["--", "true"] if command == ["exec"] else [])]) == 2
    assert not mark.exists()
    assert f"{path}:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "root", ["!psutil.Popen\n- [sh, -c, 'touch {mark}']\n", "!LookedAt\nsize: 1\n", "[1]\n"]
)
@pytest.mark.parametrize("command", ["status", "down", "ssh", "fetch"])
def test_what_is_no_cluster_is_not_constructed(
    mark: Path, root: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mark.with_name("cluster.yaml")
    path.write_text(HEADER + root.replace("{mark}", str(mark)))
    before = LookedAt.built
    assert main([command, str(path)]) == 2
    assert "expected a cluster" in capsys.readouterr().err
    assert not mark.exists()
    assert LookedAt.built == before


def test_a_cluster_to_run_on_is_read_as_values(
    mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mark.with_name("looked.yaml")
    path.write_text(EXPERIMENT.format(keyword="seed: 1"))
    assert main([str(path), "--cluster", cluster(mark, "gpus")]) == 2
    assert (
        "'gpus' of !LocalCluster takes plain values, not !psutil.Popen" in capsys.readouterr().err
    )
    assert not mark.exists()


@pytest.mark.parametrize("keyword", ["search", "schedulers", "pipeline"])
def test_a_tag_in_the_place_of_a_mapping_is_a_mistake(
    mark: Path, keyword: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = mark.with_name("looked.yaml")
    lines = {"name": "x", "pipeline": "{stage: !LookedAt {size: 1}}"}
    lines[keyword] = "!tune.uniform [0.0, 1.0]"
    path.write_text("!Experiment\n" + "".join(f"{k}: {v}\n" for k, v in lines.items()))
    assert main(["validate", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{keyword!r} of !Experiment takes a mapping, not !tune.uniform" in error
