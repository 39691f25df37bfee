"""State that a component forgot is named: where it is lost, and where it is missed."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flambe
from flambe.compile import tags
from flambe.compile.state import ForgottenWarning
from tests.experiment.lab import Lab, Outcome, environment
from tests.experiment.lab import flambe as command

EXTENSION = """
from flambe.compile import Component

class Learn(Component):
    _transient = ("cache",)
    def __init__(self, offset: float = 0.0) -> None:
        self.threshold, self.cache, self.offset = 0.0, None, offset
    def run(self) -> bool:
        self.threshold = 0.7 + self.offset
        self.cache = [1]
        return False
    def metric(self) -> float:
        return self.threshold

class Kept(Learn):
    def __init__(self) -> None:
        super().__init__()
        self.register_attrs("threshold")

class Late(Component):
    def __init__(self) -> None:
        self.steps = 0
        self.register_attrs("steps")
    def run(self) -> bool:
        self.steps += 1
        if self.steps == 7:
            self.summary = "seven"
        return self.steps < 7

class Use(Component):
    def __init__(self, learned: Learn, threshold: float) -> None:
        self.learned, self.linked = learned, threshold
    def run(self) -> bool:
        print("by object", self.learned.threshold, "by attribute", self.linked)
        return False
    def metric(self) -> float:
        return self.learned.threshold
"""

PIPELINE = """
learn: !forgetful.{learn}
use: !forgetful.Use {{learned: !@ learn, threshold: !@ learn.threshold}}
"""


@pytest.fixture
def run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    folder = lab.root / "site" / "forgetful"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(folder.parent)

    def run(pipeline: str, **options: object) -> Outcome:
        lab.write(pipeline)
        lab.config.write_text("forgetful: ./forgetful\n" + lab.config.read_text())
        return lab.run(**options).fine()  # type: ignore[arg-type]

    yield run
    sys.modules.pop("forgetful", None)
    for classes in tags._registry.classes.values():
        classes[:] = [cls for cls in classes if cls.__module__ != "forgetful"]


def advice(outcome: Outcome) -> list[str]:
    return [text for _, level, text in outcome.watcher.lines if level == "WARNING"]


def test_what_is_lost_is_named_once_and_everywhere(run: Callable[..., Outcome], lab: Lab) -> None:
    pipeline = PIPELINE.format(learn="Learn") + "again: !forgetful.Learn {offset: !g [1.0, 2.0]}\n"
    outcome = run(pipeline)
    lines = advice(outcome)
    assert lines[0].startswith(
        "Learn.threshold changed while it ran (0.0 → 0.7) and is in no state"
    )
    assert lines[1].endswith("site/forgetful/__init__.py:9, in run")
    assert lines[2] == '  to keep it:  self.register_attrs("threshold")   in __init__'
    assert len(lines) == 4
    log = outcome.folder.log.read_text()
    assert log.count("Learn.threshold") == 1
    (learn,) = outcome.of("learn")
    folder = outcome.folder.variant("learn", learn.name)
    assert "WARNING Learn.threshold changed" in (folder / "variant.log").read_text()

    # A resumed run that builds upon it says it again, though it does not run it.
    for use in outcome.of("use"):
        assert use.metric == 0.0
    text = lab.config.read_text().replace("use:", "other:")
    lab.config.write_text(text)
    assert advice(lab.run(resume=True).fine()) == lines

    # And so does who loads it.
    with pytest.warns(ForgottenWarning, match=r"Learn\.threshold changed"):
        loaded = flambe.load(outcome.folder.checkpoint("learn", learn.name))
    assert loaded.metric() == 0.0


def test_what_is_registered_arrives_by_both_kinds_of_link(run: Callable[..., Outcome]) -> None:
    outcome = run(PIPELINE.format(learn="Kept"))
    assert advice(outcome) == []
    assert ("use", "stdout", "by object 0.7 by attribute 0.7") in [
        (name.partition("_")[0], level, text) for name, level, text in outcome.watcher.lines
    ]
    (learn,) = outcome.of("learn")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = flambe.load(outcome.folder.checkpoint("learn", learn.name))
    assert loaded.metric() == learn.metric == 0.7


def test_what_appears_at_the_end_is_named(run: Callable[..., Outcome]) -> None:
    lines = advice(run("train: !forgetful.Late"))
    assert lines[0].startswith("Late.summary was set while it ran and is in no state")
    assert lines[0].endswith("it is missing")


def test_what_a_stranger_says_was_forgotten_is_only_text(tmp_path: Path) -> None:
    import pieces  # type: ignore[import-not-found]

    flambe.save(pieces.Walk(), tmp_path / "saved")
    for text in ("{", "3", "[1]", '{"a": "x\\u001b[31m"}', "[" * 50_000, '{"a": 1}', "\ud800"):
        (tmp_path / "saved" / "forgotten.json").write_text(text, errors="surrogatepass")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert flambe.load(tmp_path / "saved").done == 0
        assert not any("\x1b" in str(warning.message) for warning in caught)


def test_the_command_names_it(lab: Lab) -> None:
    folder = lab.root / "site" / "forgetful"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(textwrap.dedent(EXTENSION))
    lab.write("learn: !forgetful.Learn {offset: !g [1.0, 2.0, 3.0]}")
    lab.config.write_text("forgetful: ./forgetful\n" + lab.config.read_text())
    known = environment()
    paths = f"{folder.parent}:{known['PYTHONPATH']}"
    done = command(lab.config, env={**known, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Learn.threshold") + done.stdout.count("Learn.threshold") == 1
    assert lab.folder.log.read_text().count("Learn.threshold") == 1
