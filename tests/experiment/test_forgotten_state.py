"""State that a component forgot is named: where it is lost, and where it is missed."""

from __future__ import annotations

import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flambe
from flambe.compile.persistence import ForgottenWarning
from flambe.compile.registry import CLASSES
from flambe.errors import StateError
from flambe.progress import Status
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

class Fit(Component):
    def __init__(self, register: bool = False, fail: str = "") -> None:
        from sklearn.naive_bayes import GaussianNB
        self.clf, self.steps, self.fail = GaussianNB(), 0, fail
        self.register_attrs("steps")
        if register:
            self.register_attrs("clf", pickle=True)
    def run(self) -> bool:
        import os
        from sklearn.datasets import load_iris
        data = load_iris()
        if self.fail and self.steps == 1 and not os.path.exists(self.fail):
            open(self.fail, "w").close()
            raise ValueError("once")
        self.clf.partial_fit(data.data[self.steps::2], data.target[self.steps::2], range(3))
        self.steps += 1
        return self.steps < 2
    def metric(self) -> float:
        from sklearn.datasets import load_iris
        data = load_iris()
        return float(self.clf.score(data.data, data.target))

class Score(Component):
    def __init__(self, fitted: Fit) -> None:
        self.fitted = fitted
    def run(self) -> bool:
        return False
    def metric(self) -> float:
        return self.fitted.metric()

class Unsavable(Component):
    def __init__(self, how: str = "lock", rate: float = 0.0) -> None:
        self.how, self.odd = how, None
        self.register_attrs("odd", pickle=how == "pickled")
    def run(self) -> bool:
        import threading
        print("a step")
        self.odd = [threading.Lock()]
        return False
    def _state(self, values):
        if self.how == "hook":
            raise KeyError("no such thing")
        return values

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


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))


@pytest.fixture
def run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    folder = lab.root / "site" / "forgetful"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(folder.parent)

    def run(pipeline: str, *, more: str = "", **options: Any) -> Outcome:
        lab.write(pipeline, more=more)
        lab.config.write_text("forgetful: ./forgetful\n" + lab.config.read_text())
        return lab.run(**options)

    yield run
    sys.modules.pop("forgetful", None)
    for classes in CLASSES.by_tag.values():
        classes[:] = [cls for cls in classes if cls.__module__ != "forgetful"]


def advice(outcome: Outcome) -> list[str]:
    return [text for _, level, text in outcome.watcher.lines if level == "WARNING"]


def test_what_is_lost_is_named_once_and_everywhere(run: Callable[..., Outcome], lab: Lab) -> None:
    pipeline = PIPELINE.format(learn="Learn") + "again: !forgetful.Learn {offset: !g [1.0, 2.0]}\n"
    outcome = run(pipeline).fine()
    lines = advice(outcome)
    assert lines[0].startswith(
        "Learn.threshold changed during the run (0.0 → 0.7) but is not saved"
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
    text = lab.config.read_text().replace("learn.threshold}", "learn.offset}")
    lab.config.write_text(text)
    assert advice(lab.run(resume=True).fine()) == lines

    # And so does who loads it.
    with pytest.warns(ForgottenWarning, match=r"Learn\.threshold changed"):
        loaded = flambe.load(outcome.folder.checkpoint("learn", learn.name))
    assert loaded.metric() == 0.0


def test_what_is_registered_arrives_by_both_kinds_of_link(run: Callable[..., Outcome]) -> None:
    outcome = run(PIPELINE.format(learn="Kept")).fine()
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
    lines = advice(run("train: !forgetful.Late").fine())
    assert lines[0].startswith("Late.summary was set during the run but is not saved")
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


@pytest.mark.long
@pytest.mark.integration
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


# -- pickles ------------------------------------------------------------------------------------

FITTED = "fit: !forgetful.Fit {{register: true, fail: '{fail}'}}\nscore: !forgetful.Score {{fitted: !@ fit}}\n"


def test_an_estimator_that_is_not_registered_is_named_with_what_keeps_it(
    run: Callable[..., Outcome],
) -> None:
    outcome = run("fit: !forgetful.Fit")
    lines = advice(outcome.fine())
    assert lines[0].startswith("Fit.clf changed during the run but is not saved")
    assert lines[2] == (
        '  to keep it:  self.register_attrs("clf", pickle=True)   in __init__: a GaussianNB needs '
        "pickle"
    )


def test_an_estimator_arrives_in_later_stages_and_after_a_failure(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = run(FITTED.format(fail=tmp_path / "failed")).fine()
    assert advice(outcome) == []
    (fit,), (score,) = outcome.of("fit"), outcome.of("score")
    assert fit.attempts == 2
    assert fit.metric is not None
    assert score.metric == fit.metric > 0.9
    checkpoint = outcome.folder.checkpoint("fit", fit.name)
    with pytest.raises(StateError, match=r"'clf' is a pickle.*\n.*trust=True"):
        flambe.load(checkpoint)
    assert flambe.load(checkpoint, trust=True).metric() == fit.metric


def test_a_run_unpickles_nothing_that_somebody_else_wrote(
    run: Callable[..., Outcome], lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a run may have been unpacked from an archive of a stranger."""
    pipeline = FITTED.format(fail="")
    run(pipeline).fine()
    score = next((lab.folder.root / "score").iterdir())
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "another"))
    (score / "checkpoint" / "manifest.json").unlink()
    outcome = lab.run(resume=True)
    text = str(outcome.raised())
    assert "Fit: 'clf' is a pickle, which can run code as you, and is not read" in text
    command = re.search(r'python -c "(.*)"', text)
    assert command is not None
    exec(command[1], {})
    lab.run(resume=True).fine()


# -- what cannot be saved -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("lock", r"its 'odd\[0\]' is a _thread.lock, which would need pickle"),
        ("pickled", r"its 'odd' is a builtins.list, which cannot be pickled"),
    ],
)
def test_what_cannot_be_saved_fails_for_good_at_the_first_checkpoint(
    run: Callable[..., Outcome], how: str, message: str
) -> None:
    outcome = run(f"train: !forgetful.Unsavable {{how: {how}}}", more="max_failures: 5")
    assert re.search(message, str(outcome.raised()))
    (variant,) = outcome.of("train")
    assert (variant.attempts, variant.status) == (1, Status.FAILED)
    assert re.search(message, variant.error)
    assert "register" in variant.error
    assert re.search(message, outcome.folder.log.read_text())


def test_a_hook_that_raises_is_an_error_of_its_component(run: Callable[..., Outcome]) -> None:
    outcome = run("train: !forgetful.Unsavable {how: hook}", more="max_failures: 0")
    assert "saving the state of !forgetful.Unsavable" in str(outcome.raised())
    assert "no such thing" in str(outcome.raised())


@pytest.mark.integration
def test_the_command_fails_once_and_says_why(lab: Lab) -> None:
    folder = lab.root / "site" / "forgetful"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(textwrap.dedent(EXTENSION))
    lab.write(
        "fit: !forgetful.Fit {register: true, fail: RECORD}\n"
        "score: !forgetful.Score {fitted: !@ fit}\n"
        "train: !forgetful.Unsavable {rate: !g [1.0, 2.0]}",
        more="max_failures: 3\nstop_on_failure: false",
    )
    lab.config.write_text("forgetful: ./forgetful\n" + lab.config.read_text())
    known = environment()
    paths = f"{folder.parent}:{known['PYTHONPATH']}"
    done = command(lab.config, env={**known, "PYTHONPATH": paths})
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert "its 'odd[0]' is a _thread.lock, which would need pickle" in output
    assert "self.register_attrs('odd', pickle=True)" in output
    variants = list(lab.folder.read_variants().values())
    assert [v.attempts for v in variants if v.stage == "train"] == [1, 1]
    assert [v.metric for v in variants if v.stage == "fit"] == [
        v.metric for v in variants if v.stage == "score"
    ]
    log = lab.folder.log.read_text()
    assert log.count("a step") == 2
