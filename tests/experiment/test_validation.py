"""What is known of an experiment before it runs is told by ``flambe validate`` and ``flambe plan``."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from flambe.compile.checks.calls import check
from flambe.compile.reader.document import read_text
from flambe.experiment.storage.output_folder import output_folder
from flambe.runnable import Secrets
from tests.experiment.lab import HEADER, Lab, flambe, flambe_here


def told(lab: Lab, *command: str, **variables: str) -> list[str]:
    """Return the mistakes that the command tells; it exits with 2."""
    result = flambe_here(*command, lab.config, **variables)
    assert result.returncode == 2, result.stderr
    lines = result.stderr.replace(f"{lab.root}/", "").splitlines()
    return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]


def problems(pipeline: str) -> list[str]:
    document = read_text(f"{HEADER}!Experiment\nname: a\n{pipeline}")
    check(document)
    return [f"{p.place.line}:{p.place.column} {p.message}" for p in document.problems if p.place]


# -- links --------------------------------------------------------------------------------------


def test_links_to_objects_of_a_wrong_type(lab: Lab) -> None:
    (lab.root / "file").touch()
    lab.write(
        """
        data: !SklearnDataset {}
        walk: !pieces.Walk {label: !@ file, steps: !g [1, 2]}
        more: !pieces.Walk {start: !@ walk, rate: !@ 'walk[steps]', label: !@ walk.label}
        train: !Trainer
          dataset: !@ walk
          model: !@ data
          train_sampler: !g [!BaseSampler {}, !@ file]
          val_sampler: !BaseSampler
          loss_fn: !torch.NLLLoss
          metric_fn: {accuracy: !Accuracy {}, data: !@ data}
          optimizer: !torch.Adam
            params: !@ train[model].trainable_params
        wrong: !pieces.Walk {steps: !@ file}
        """,
        more="resources: {file: file}",
    )
    assert told(lab, "validate") == [
        "config.yaml:13:14: 'dataset' of !Trainer cannot be !pieces.Walk (!@ walk)",
        "config.yaml:14:12: 'model' of !Trainer cannot be !SklearnDataset (!@ data)",
        "config.yaml:15:41: 'train_sampler[1]' of !Trainer cannot be 'file' (!@ file)",
        "config.yaml:18:47: 'metric_fn[data]' of !Trainer cannot be !SklearnDataset (!@ data)",
        "config.yaml:21:31: 'steps' of !pieces.Walk cannot be 'file' (!@ file)",
    ]


def test_the_order_of_keywords_means_nothing(lab: Lab) -> None:
    (lab.root / "numbers").write_text("1 2")
    lab.write("read: !pieces.Fixed {value: 1, other: !@ numbers}")
    text = lab.config.read_text()
    lab.config.write_text(f"{text}resources: {{numbers: numbers}}\n")
    [variant] = lab.run().fine().of("read")
    assert variant.metric == 1
    stages = "pipeline:\n  a: !pieces.Walk {start: !@ b}\n  b: !pieces.Walk {}\n"
    assert problems(stages) == ["6:27 !@ b leads to something later"]


# -- what is named, and is not there --------------------------------------------------------------


def test_resources_that_are_not_there(lab: Lab) -> None:
    (lab.root / "there").mkdir()
    more = """\
    resources:
      data: ./nothing
      there: there
      web: https://example.com/x
      far: s3://bucket/x
      home: ~/no-such-file-at-all
      on_it: !cluster /data
    """
    lab.write("a: !pieces.Walk {}", more=more)
    found = told(lab, "validate")
    assert [re.sub(r"there is no (.*/)?", "there is no …/", line) for line in found] == [
        "config.yaml:8:9: resource 'data': there is no …/nothing",
        "config.yaml:12:9: resource 'home': there is no …/no-such-file-at-all",
    ]
    hosts = flambe_here("validate", lab.config, FLAMBE_HOST="orchestrator")
    assert hosts.returncode == 0, hosts.stderr


def test_stages_to_resume_from(lab: Lab) -> None:
    lab.write("walk: !pieces.Walk {}\nmore: !pieces.Walk {start: !@ walk}")
    for command in (["plan"], []):
        result = flambe_here(*command, lab.config, "--resume-from", "walk,mor")
        assert result.returncode == 2
        assert "config.yaml:8:1: --resume-from: unknown stage 'mor'" in result.stderr
        assert "did you mean 'more'?" in result.stderr
    assert not lab.folder.root.exists()
    assert flambe_here("plan", lab.config, "--resume-from", "walk").returncode == 0


@pytest.mark.integration
def test_devices_that_are_not_there(lab: Lab) -> None:
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    lab.write("a: !pieces.Walk {}", more="devices: {gpu: 1}")
    result = flambe(lab.config)
    assert result.returncode == 2
    assert "devices: a variant needs 1 gpu, and this machine has none" in result.stderr
    assert "leave gpu out of devices" in result.stderr
    assert "did you mean" not in result.stderr


# -- names and folders ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [101, 255, 256])
def test_names_that_no_folder_can_have(lab: Lab, length: int) -> None:
    name = "n" * length
    (lab.root / "file").touch()
    lab.name = name
    lab.write(f"{name}: !pieces.Walk {{}}", more=f"resources: {{{name[1:]}xy: file}}")
    lab.name = "trial"
    found = told(lab, "validate")
    assert [line.partition(": ")[0].rpartition(":")[0] for line in found] == [
        "config.yaml:4",
        "config.yaml:7",
        "config.yaml:9",
    ]
    assert all(len(line) < 200 for line in found)


def test_long_values_and_values_of_several_lines_have_short_names(lab: Lab) -> None:
    long = "v" * 300
    outcome = lab.run(
        f"""
        a: !pieces.Walk {{steps: 1, label: !g ["two\\nlines\\t\\e[2J", {long}, "{"ü" * 200}"]}}
        b: !pieces.Walk {{steps: 1, start: !@ a, label: !g [{long}1, {long}2]}}
        """
    ).fine()
    assert len(outcome.of("b")) == 6
    for variant in outcome.variants:
        assert len(variant.name.encode()) < 150
        assert variant.name.isprintable()
        assert outcome.folder.variant(variant.stage, variant.name).is_dir()
        assert all(str(choice).isprintable() for choice in variant.choices.values())


def test_variables_and_home_in_save_path(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write("a: !pieces.Walk {steps: 1}")
    text = lab.config.read_text()
    lab.config.write_text(text.replace(f"save_path: {lab.root}/out", "save_path: $SCRATCH_/out"))
    assert told(lab, "validate") == [
        "config.yaml:6:12: save_path: the variable SCRATCH_ is not set"
    ]
    monkeypatch.setenv("SCRATCH_", str(lab.root))
    outcome = lab.run().fine()
    assert outcome.state.status.done
    assert output_folder(lab.experiment()) == lab.folder.root
    planned = flambe_here("plan", lab.config)
    assert "1 of 1 variants are done" in planned.stdout
    for path in ("${SCRATCH_}/out", "~/x"):
        lab.config.write_text(text.replace(f"{lab.root}/out", path))
        expected = os.path.expanduser(os.path.expandvars(path))
        assert str(output_folder(lab.experiment())) == f"{expected}/output__trial"
    lab.config.write_text(text.replace(f"{lab.root}/out", "~no_such_user/x"))
    assert told(lab, "validate") == ["config.yaml:6:12: save_path: there is no user 'no_such_user'"]


def test_a_secrets_file_may_be_marked_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "secrets.ini"
    path.write_text("[token]\nkey = abcdef\n", encoding="utf-8-sig")
    path.chmod(stat.S_IRUSR)
    assert Secrets.read(path)["token"]["key"] == "abcdef"
