"""A finished experiment is edited and resumed: exactly which variants run, and the reason shown."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from flambe.experiment.variants.expansion import Expander, Variant
from flambe.experiment.variants.inputs import Inputs, local_resource_paths
from flambe.experiment.variants.lineage import former_results
from flambe.progress import Status, VariantState
from tests.experiment.lab import Lab, Outcome

_numbers = itertools.count()

BASE = """
from pathlib import Path
from flambe.compile import Component

class Base(Component):
    def scale(self, value):
        return value * GAIN
"""
NET = """
from BASE import Base
import LIBRARY

class Net(Base):
    def __init__(self, rate=1.0, text="", start=None, shift=0):
        self.rate, self.text, self.start, self.shift = rate, text, start, shift
        self.figure = 0.0
        self.register_attrs("figure")

    def run(self):
        self.figure = LIBRARY.same(self.scale(self.rate)) + self.shift
        self.figure += self.start.figure if self.start else 0
        if self.text:
            self.figure += len(open(self.text).read())
        return False

    def metric(self):
        return self.figure
"""
OTHER = """
from flambe.compile import Component

class Other(Component):
    def __init__(self, size=1):
        self.size, self.figure = size, 0.0
        self.register_attrs("figure")

    def run(self):
        self.figure = float(self.size)
        return False

    def metric(self):
        return self.figure
"""
PIPELINE = """
data: !NET.Net {text: !@ corpus}
train: !NET.Net {start: !@ data, rate: !g [1.0, 2.0], shift: 0}
test: !NET.Net {start: !@ train, rate: 0.0}
apart: !OTHER.Other {size: !g [1, 2]}
"""
RESOURCES = "resources: {corpus: ./corpus.txt, unlinked: ./unlinked.txt}"
REDUCE = "reduce: {train: 1}"


class Project:
    """An experiment with two extensions, a module of the user and a library that is installed."""

    def __init__(self, lab: Lab) -> None:
        self.lab, number = lab, next(_numbers)
        self.names = {
            name: f"{name.lower()}{number}" for name in ("BASE", "NET", "OTHER", "LIBRARY")
        }
        self.name = self.names["NET"]
        for name, text in (("BASE", BASE.replace("GAIN", "1")), ("NET", NET), ("OTHER", OTHER)):
            self.write(name, text)
        self.packages = lab.root / "site-packages"
        self.packages.mkdir()
        (self.packages / f"{self.names['LIBRARY']}.py").write_text("def same(x):\n    return x\n")
        self.install("1.0")
        self.pipeline, self.more, self.seed = PIPELINE, f"{RESOURCES}\n{REDUCE}", 0
        for name in ("corpus", "unlinked"):
            (lab.root / f"{name}.txt").write_text("abc")

    def replace_names(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(name, value)
        return text

    def file(self, name: str) -> Path:
        return self.lab.root / f"{self.names[name]}.py"

    def write(self, name: str, text: str) -> None:
        self.file(name).write_text(self.replace_names(text), encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        text = self.file(name).read_text(encoding="utf-8")
        assert old in text
        self.write(name, text.replace(old, new))

    def install(self, version: str) -> None:
        """Make the library a distribution of that version."""
        library = self.names["LIBRARY"]
        for folder in self.packages.glob("*.dist-info"):
            (folder / "METADATA").unlink()
            folder.rmdir()
        info = self.packages / f"{library}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {library}\nVersion: {version}\n"
        )

    def edit(self, old: str, new: str) -> None:
        assert old in self.pipeline
        self.pipeline = self.pipeline.replace(old, new)

    def run(self, **options: Any) -> Outcome:
        self.lab.write(self.replace_names(self.pipeline), more=self.more, seed=self.seed)
        text = self.lab.config.read_text(encoding="utf-8")
        declared = "".join(f"{self.names[n]}: ./{self.names[n]}\n" for n in ("NET", "OTHER"))
        self.lab.config.write_text(text.replace("pieces: ./pieces\n", declared), encoding="utf-8")
        return self.lab.run(**options).fine()

    def resume(self, **options: Any) -> Outcome:
        return self.run(resume=True, **options)


@pytest.fixture
def project(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.syspath_prepend(str(lab.root / "site-packages"))
    monkeypatch.syspath_prepend(str(lab.root))
    return Project(lab)


def title(variant: VariantState) -> str:
    own = {name.rpartition(".")[2]: value for name, value in variant.choices.items()}
    return " ".join([variant.stage, *(f"{k}={v}" for k, v in own.items())])


def ran(outcome: Outcome) -> dict[str, str]:
    """Return which variants were run, and why."""
    done = [v for v in outcome.variants if v.status is Status.FINISHED]
    assert all(
        v.status in (Status.FINISHED, Status.REUSED, Status.MASKED) for v in outcome.variants
    )
    return {title(variant): variant.reason for variant in done}


ALL = ["data", "train rate=1.0", "train rate=2.0", "test rate=2.0", "apart size=1", "apart size=2"]
OF_NET = ALL[:4]


def test_nothing_is_edited(project: Project) -> None:
    first = project.run()
    assert ran(first) == dict.fromkeys(ALL, "")
    metrics = [v.metric for v in first.variants]
    again = project.resume()
    assert ran(again) == {}
    assert [v.metric for v in again.variants] == metrics


def test_a_value_is_added(project: Project) -> None:
    project.run()
    project.edit("[1.0, 2.0]", "[1.0, 2.0, 3.0]")
    assert ran(project.resume()) == {
        "train rate=3.0": "new value rate=3",
        "test rate=3.0": "ancestor train: new value rate=3",  # it is the best now
    }


def test_a_value_is_removed_and_comes_back(project: Project) -> None:
    first = project.run().variants
    project.edit("[1.0, 2.0]", "[1.0]")
    again = project.resume()
    assert ran(again) == {"test rate=1.0": "train rate=1 is kept by reduce now"}
    # What no longer belongs is kept, listed, and no part of the run.
    assert not any(v.choices.get("rate") == 2.0 for v in again.variants)
    former = {title(result.entry): result.reason for result in former_results(again.folder)}
    assert former == {
        "train rate=2.0": "no longer in the file",
        "test rate=2.0": "no longer in the file",
    }
    project.edit("[1.0]", "[1.0, 2.0]")
    back = project.resume()
    assert ran(back) == {}
    assert {v.id: v.metric for v in back.variants} == {v.id: v.metric for v in first}
    reasons = {title(v): v.reason for v in back.variants if v.status is Status.REUSED}
    assert reasons["train rate=2.0"] == "result of an earlier configuration"
    assert reasons["train rate=1.0"] == ""


def test_keys_are_reordered(project: Project) -> None:
    project.run()
    project.edit("{start: !@ data, rate: !g [1.0, 2.0], shift: 0}",
                 "{shift: 0, rate: !g [2.0, 1.0], start: !@ data}")  # fmt: skip
    lines = project.pipeline.strip().splitlines()
    project.pipeline = "\n".join([lines[3], *lines[:3]])  # stages, too
    project.more = f"{REDUCE}\nresources: {{unlinked: ./unlinked.txt, corpus: ./corpus.txt}}"
    assert ran(project.resume()) == {}


def test_a_stage_is_renamed(project: Project) -> None:
    first = project.run().variants
    project.edit("train", "fit")
    project.edit("data", "text")
    project.more = project.more.replace("train", "fit")
    again = project.resume()
    assert ran(again) == {}
    assert {v.id: v.metric for v in again.variants} == {v.id: v.metric for v in first}
    assert {v.reason for v in again.of("fit")} == {"stage train was renamed to fit"}
    for variant in again.of("fit"):
        assert again.folder.checkpoint("fit", variant.name).is_dir()
        assert again.figures(variant, "metric")
    assert not list(again.folder.root.glob("train/*"))
    # It is still the same stage when it is edited later, and when its name comes back.
    project.edit("[1.0, 2.0]", "[1.0, 2.0, 0.5]")
    assert ran(project.resume()) == {"fit rate=0.5": "new value rate=0.5"}
    project.edit("fit", "train")
    project.more = project.more.replace("fit", "train")
    assert ran(project.resume()) == {}


def test_a_stage_is_renamed_and_edited(project: Project) -> None:
    project.run()
    project.edit("apart: !OTHER.Other {size: !g [1, 2]}", "own: !OTHER.Other {size: !g [2, 3]}")
    assert ran(project.resume()) == {"own size=3": "new value size=3"}


def test_a_stage_with_drawn_values_is_renamed(project: Project) -> None:
    project.edit("!g [1, 2]", "!s [1, 1000, 3]")
    drawn = [v.choices for v in project.run().of("apart")]
    project.edit("apart", "alone")
    again = project.resume()
    assert ran(again) == {}
    assert [v.choices for v in again.of("alone")] == drawn
    # A new stage of the name that it had is another one: its random numbers are its own.
    project.pipeline += "apart: !OTHER.Other {size: !g [1, 2]}\n"
    assert ran(project.resume()) == {"apart size=1": "new stage", "apart size=2": "new stage"}


def test_a_constant_is_changed(project: Project) -> None:
    project.run()
    project.edit("shift: 0", "shift: 1")
    assert ran(project.resume()) == {
        "train rate=1.0": "shift 0 → 1",
        "train rate=2.0": "shift 0 → 1",
        "test rate=2.0": "ancestor train: shift 0 → 1",
    }
    project.edit("shift: 1", "shift: 0")
    assert ran(project.resume()) == {}


def test_a_comment_in_yaml(project: Project) -> None:
    project.run()
    project.pipeline = project.pipeline.replace("\n", "  # of no consequence\n\n")
    assert ran(project.resume()) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        return False", "        # It is done.\n\n        return (False)"),
        ("(Base):", '(Base):\n    """A net."""\n'),
    ],
)
def test_a_comment_and_a_docstring_in_code(project: Project, old: str, new: str) -> None:
    project.run()
    project.change("NET", old, new)
    assert ran(project.resume()) == {}


def test_the_code_of_an_extension(project: Project) -> None:
    project.run()
    project.change("NET", "+ self.shift", "- self.shift")
    again = project.resume()
    assert ran(again) == dict.fromkeys(OF_NET, f"code of {project.name}.Net changed")
    former = former_results(again.folder)
    assert {title(result.entry) for result in former} == set(OF_NET)
    assert {result.reason for result in former} == {f"code of {project.name}.Net changed"}
    project.change("NET", "- self.shift", "+ self.shift")
    assert ran(project.resume()) == {}


def test_the_code_of_a_base_class(project: Project) -> None:
    project.run()
    project.change("BASE", "value * 1", "value * 2")
    again = project.resume()
    assert ran(again) == dict.fromkeys(OF_NET, f"code of {project.name}.Net changed")


def test_the_code_of_an_unrelated_extension(project: Project) -> None:
    project.run()
    project.change("OTHER", "float(self.size)", "2.0 * self.size")
    reason = f"code of {project.names['OTHER']}.Other changed"
    assert ran(project.resume()) == {"apart size=1": reason, "apart size=2": reason}


def test_the_bytes_of_a_resource(project: Project) -> None:
    project.run()
    (project.lab.root / "corpus.txt").write_text("abcd")
    reason = "resource 'corpus' changed"
    assert ran(project.resume()) == {
        "data": reason,
        **dict.fromkeys(OF_NET[1:3], f"ancestor data: {reason}"),
        "test rate=2.0": f"ancestor data: {reason}",
    }


def test_an_unlinked_resource(project: Project) -> None:
    project.run()
    (project.lab.root / "unlinked.txt").write_text("abcd")
    assert ran(project.resume()) == {}
    project.more = project.more.replace("unlinked: ./unlinked.txt", "another: ./corpus.txt")
    assert ran(project.resume()) == {}


@pytest.mark.parametrize("stored", ["", "        self.depth = depth\n"])
def test_a_default_argument_is_added(project: Project, stored: str) -> None:
    project.run()
    project.change("NET", "shift=0):\n", f"shift=0, depth=3):\n{stored}")
    assert ran(project.resume()) == {}
    # What is used is another program.
    project.change("NET", "        return False", "        return self.depth < 3")
    if stored:
        again = project.resume()
        assert ran(again) == dict.fromkeys(OF_NET, f"code of {project.name}.Net changed")


def test_the_reduce(project: Project) -> None:
    project.run()
    project.more = project.more.replace("train: 1", "train: 2")
    assert ran(project.resume()) == {"test rate=1.0": "train rate=1 is kept by reduce now"}
    project.more = RESOURCES
    assert ran(project.resume()) == {}
    project.more = f"{RESOURCES}\n{REDUCE}"
    again = project.resume()
    assert ran(again) == {}
    # Both are done, and one is masked: it is listed among what is no part of the run.
    assert again.statuses("test") == [Status.MASKED, Status.REUSED]
    former = former_results(again.folder)
    assert [(title(r.entry), r.reason) for r in former] == [
        ("test rate=1.0", "train rate=1 was not kept by reduce")
    ]


def test_the_seed(project: Project) -> None:
    project.run()
    project.seed = 1
    assert ran(project.resume()) == dict.fromkeys(ALL, "seed 0 → 1")
    project.seed = 0
    assert ran(project.resume()) == {}


def test_the_version_of_a_dependency(project: Project) -> None:
    project.run()
    project.install("1.1")
    reason = f"{project.names['LIBRARY']} 1.0 → 1.1"
    assert ran(project.resume()) == dict.fromkeys(OF_NET, reason)
    project.install("1.0")
    assert ran(project.resume()) == {}
    project.install("1.0+cpu")  # the same version, built for other hardware
    assert ran(project.resume()) == {}


def test_fingerprints_may_be_of_versions_only_or_none(project: Project) -> None:
    project.run()
    project.change("NET", "+ self.shift", "- self.shift")
    more = project.more
    project.more = f"{more}\nfingerprint: version"
    assert ran(project.resume()) == {}
    project.install("1.1")
    assert ran(project.resume()) == dict.fromkeys(OF_NET, f"{project.names['LIBRARY']} 1.0 → 1.1")
    project.install("1.2")
    project.more = f"{more}\nfingerprint: off"
    assert ran(project.resume()) == {}


def test_a_version_that_a_class_declares_stands_for_its_source(project: Project) -> None:
    project.change("NET", "class Net(Base):\n", 'class Net(Base):\n    _flambe_version = "1"\n')
    project.run()
    project.change("NET", "+ self.shift", "- self.shift")
    assert ran(project.resume()) == {}
    project.more += "\nfingerprint: version"
    project.change("NET", '"1"', '"2"')
    assert ran(project.resume()) == dict.fromkeys(OF_NET, f"code of {project.name}.Net changed")


# -- results of earlier versions of flambe ------------------------------------------------------


def written_before_packages(project: Project, outcome: Outcome) -> None:
    """Rewrite a journal as it was when an identity held no packages."""
    spec = project.lab.experiment().spec()
    inputs = Inputs.of(spec, local_resource_paths(spec))
    inputs.packages = {}
    expander = Expander(spec.pipeline, 0, spec.resources, inputs, all_resources=True)
    expanded: dict[str, list[Variant]] = {}
    ids, configs = {}, {}
    for stage in spec.pipeline:
        expanded[stage] = expander.expand(stage, expanded)
        for entry, variant in zip(outcome.of(stage), expanded[stage], strict=True):
            ids[entry.id], configs[entry.id] = variant.id, variant.config_id
    lines = []
    for line in outcome.folder.variants.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        entry.pop("packages", None)
        if "parents" in entry:
            entry["parents"] = {stage: ids[parent] for stage, parent in entry["parents"].items()}
            entry["config_id"] = configs[entry["id"]]
        lines.append(json.dumps({**entry, "id": ids[entry["id"]]}) + "\n")
    outcome.folder.variants.write_text("".join(lines), encoding="utf-8")
    outcome.folder.lineage.unlink()


def test_results_that_recorded_no_packages_are_found(project: Project) -> None:
    first = project.run()
    written_before_packages(project, first)
    ids = [v.id for v in first.variants if v.status.done]
    project.edit("train", "fit")
    project.more = project.more.replace("train", "fit")
    again = project.resume()
    assert ran(again) == {}
    assert sorted(v.id for v in again.variants if v.status.done) == sorted(ids)
    # From here on they are known.
    project.install("1.1")
    assert ran(project.resume()) == dict.fromkeys(
        ("data", "fit rate=1.0", "fit rate=2.0", "test rate=2.0"),
        f"{project.names['LIBRARY']} 1.0 → 1.1",
    )


def test_stale_results_that_recorded_no_packages(project: Project) -> None:
    written_before_packages(project, project.run())
    project.change("NET", "+ self.shift", "- self.shift")
    assert ran(project.resume()) == dict.fromkeys(OF_NET, f"code of {project.name}.Net changed")
