"""Every failure has its reason wherever people look, and a run with failures says so."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from flambe.experiment.storage.mark_interrupted import mark_interrupted
from flambe.progress import RunFolder, Status
from tests.cli import inline
from tests.cli.inline import Terminal, flambe, state, write
from tests.experiment import lab

pytestmark = pytest.mark.integration

SOME = """\
  fit: !says.Says {text: !g [a, b, c], fails: !g [true, false]}
  upon: !says.Says {text: x, other: !@ fit}
"""


def test_a_run_that_finished_without_some_says_so_everywhere(tmp_path: Path) -> None:
    config = write(tmp_path, SOME, "max_failures: 0\nstop_on_failure: false")
    done = flambe(tmp_path, config)
    assert done.returncode == 1
    assert "✘ shown finished with 3 failed in" in done.stdout
    assert "✔ shown" not in done.stdout
    assert "fit: finished, 3 of 6 variants done, 3 failed" in done.stdout
    assert "upon: finished, 3 of 3 variants done, 3 skipped" in done.stdout
    for text in "abc":
        assert re.search(rf"│ {text} .*✘ failed .*│ ValueError: no luck with {text} ", done.stdout)
        assert f"fit text={text}" in done.stderr
        assert f"no luck with {text}" in done.stderr
    assert "error: 3 of 9 variants failed; the run finished without them" in done.stderr
    assert done.stderr.count("variant.log") == 3
    assert "the best" in done.stdout
    said = state(tmp_path)
    assert (said.status, said.outcome) == (Status.FINISHED, "finished with 3 failed")
    # On a narrow terminal nothing that was reached is cut, and reasons are below.
    again = Terminal(tmp_path, config, "--force", NO_COLOR="1", COLUMNS="70")
    drawn = again.read()
    assert "✘ shown finished with 3 failed" in drawn
    for text in (
        "metric",
        "✘ failed",
        "✔ finished",
        "fit text=a,fails=True: ValueError: no luck with a",
    ):
        assert text in drawn, text
    assert "│ reason" not in drawn
    assert again.code() == 1


def test_many_failures_are_told_once_by_their_reasons(tmp_path: Path) -> None:
    values = ", ".join(f"v{number}" for number in range(30))
    pipeline = f"  fit: !says.Says {{text: !g [{values}], fails: true}}"
    done = flambe(tmp_path, write(tmp_path, pipeline, "max_failures: 0"))
    assert done.returncode == 1
    assert done.stderr.count("no luck with") < 15
    assert "and 20 more reasons, in" in done.stderr
    assert "30 of 30 variants of stage 'fit' failed" in done.stderr
    alike = pipeline.replace("fails: true", "fails: true, metric: 2").replace("!g [v0", "!g [x")
    alike = f"  fit: !says.Says {{text: same, metric: !g [{', '.join('1234')}], fails: true}}"
    done = flambe(tmp_path, write(tmp_path, alike, "max_failures: 0"), "--force")
    assert "fit metric=1, and 3 others alike: " in done.stderr
    assert done.stderr.count("no luck with same") == 1


ENDS = """
import os, signal, sys, threading
from flambe.compile import Component

class Ends(Component):
    def __init__(self, how):
        self.how = how
        if how == "save":
            self.lock = threading.Lock()
            self.register_attrs("lock")
    def run(self):
        print("about to", self.how, flush=True)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(3)
        if self.how == "raise":
            raise KeyError("nowhere")
        return False
    def metric(self):
        return 1.0
"""


def test_ends_of_every_kind_are_told_where_ray_runs_them(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(ENDS)
    config = write(
        tmp_path,
        "  a: !ends.Ends {how: !g [kill, exit, save, raise, fine]}",
        "max_failures: 0\nstop_on_failure: false",
    )
    config.write_text("ends: ./ends.py\n" + config.read_text())
    done = lab.flambe(config, cwd=tmp_path, env=inline.environment(tmp_path, COLUMNS="200"))
    assert done.returncode == 1
    assert "shown finished with 4 failed" in done.stdout
    # What Ray's processes say of one another is not what happened.
    assert "raylet" not in done.stdout + done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stderr.startswith("error: 4 of 5 variants failed; ")
    assert "a how=kill" in done.stderr
    folder = RunFolder(tmp_path / "flambe-output/output__shown")
    entries = {entry.choices["how"]: entry for entry in folder.read_variants().values()}
    assert entries.pop("fine").status is Status.FINISHED
    for how, entry in entries.items():
        assert entry.status is Status.FAILED
        reason = entry.error.splitlines()[0].removeprefix("StateError: ")
        assert reason
        for log in (folder.log, folder.variant("a", entry.name) / "variant.log"):
            assert reason in log.read_text(), (how, log)
        assert f"a how={how} | {reason}"[:150] in done.stdout
        assert re.search(rf"│ {how} +│.*failed +│ \w+", done.stdout), how


KILLED = """
import os, signal
from flambe.compile import Component

class Kills(Component):
    def __init__(self, kill=False):
        self.kill = kill
    def run(self):
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return False
    def metric(self):
        return 1.0
"""


def test_of_a_run_that_was_killed_the_state_counts_what_became_of_its_variants(
    tmp_path: Path,
) -> None:
    (tmp_path / "kills.py").write_text(KILLED)
    config = write(tmp_path, "  a: !kills.Kills {kill: !g [0, 1, no]}")
    config.write_text("kills: ./kills.py\n" + config.read_text())
    assert flambe(tmp_path, config).returncode == -signal.SIGKILL
    assert state(tmp_path).status is Status.RUNNING
    folder = RunFolder(tmp_path / "flambe-output/output__shown")
    mark_interrupted(folder)
    after = state(tmp_path)
    assert after.status is Status.INTERRUPTED
    assert after.stage("a").counts == {"finished": 1, "interrupted": 1, "waiting": 1}
    assert "interrupted" in flambe(tmp_path, "results", "flambe-output").stdout
