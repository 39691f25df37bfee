"""A notebook, executed by a real kernel: an experiment on real data with Ray, and an interrupt."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
STATE = """
import os, sys, signal, logging, threading, warnings
def state():
    loggers = [logging.root, *map(logging.getLogger, sorted(KNOWN))]
    umask = os.umask(0); os.umask(umask)
    return {
        "environment": dict(os.environ),
        "signals": {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
        "path": list(sys.path), "folder": os.getcwd(), "umask": umask,
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook),
        "streams": (sys.stdout, sys.stderr),
        "filters": list(warnings.filters), "showwarning": warnings.showwarning,
        "logging": {l.name: (l.level, l.handlers[:], l.propagate) for l in loggers},
        "threads": sum("flambe" in t.name for t in threading.enumerate()),
    }
# What importing does to loggers and variables of these libraries stays.
import ray, sklearn.datasets, torch, flambe.experiment.executors.tune.driver
KNOWN = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in
         ("ray", "flambe", "asyncssh", "fsspec", "optuna", "asyncio", "py")]
from ray._private import worker
printer, before = worker.print_to_stdstream, state()
"""
RUN = """
import flambe
experiment = flambe.load_config(
    "digits.yaml", overrides={"train.max_steps": 2, "train.iter_per_step": 20}
)
run = experiment.run()
"""
SAME = """
after = state()
def differing(a, b):
    return {k: (a.get(k), b.get(k)) for k in {**a, **b} if a.get(k) != b.get(k)}
for name in ("environment", "logging"):
    print(differing(before.pop(name), after.pop(name)))
print(differing(before, after))
print(worker.print_to_stdstream is printer, ray.is_initialized())
"""
SLOW = """
slow = flambe.load_config("digits.yaml", overrides={"name": "slow", "train.max_steps": 100000})
slow.run()
"""
LIVES = """
restored = signal.getsignal(signal.SIGINT) is before["signals"][signal.SIGINT]
print(slow.last_run.status, list(slow.last_run.variants.state), restored, ray.is_initialized())
"""


class Client(nbclient.NotebookClient):  # type: ignore[misc, name-defined]
    """Executes a notebook, and interrupts the run of one cell: as the stop button does."""

    interrupted = -1

    async def async_execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Execute a cell."""
        if cell_index == self.interrupted:
            waiting = asyncio.create_task(self._interrupt(cell))
        try:
            return await super().async_execute_cell(cell, cell_index, **options)
        finally:
            if cell_index == self.interrupted:
                await waiting

    async def _interrupt(self, cell: Any) -> None:
        deadline = time.monotonic() + 500
        while "1 running" not in str(cell.outputs) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        await self.km.interrupt_kernel()


def execute(folder: Path, *cells: str, interrupted: int = -1) -> list[Any]:
    """Run cells in one kernel, and return them with their outputs."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    settings = {"metadata": {"path": str(folder)}}
    client = Client(book, timeout=600, allow_errors=True, resources=settings)
    client.interrupted = interrupted
    client.execute()
    return list(book.cells)


def text_of(cell: Any) -> str:
    return "".join(
        output.get("text", "") for output in cell.outputs if output.output_type == "stream"
    )


def errors_of(cell: Any) -> list[str]:
    return ["\n".join(o.traceback) for o in cell.outputs if o.output_type == "error"]


def pages_of(cell: Any) -> list[str]:
    data = [output.get("data", {}) for output in cell.outputs]
    return [entry["text/html"] for entry in data if "text/html" in entry]


def example() -> list[str]:
    """Return the code of the notebook in ``examples``."""
    book = nbformat.read(ROOT / "examples" / "digits.ipynb", as_version=4)
    nbformat.validate(book)
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The cells of one notebook: a kernel and Ray take their time."""
    folder = tmp_path_factory.mktemp("notebook")
    text = (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8")
    text = text.partition("\n  # The test data")[0]  # without the stage "evaluate"
    for grid, quick in (("[16, 32, 64, 128]", "[64]"), ("[0.001, 0.003, 0.01]", "[0.01]")):
        assert grid in text
        text = text.replace(grid, quick)
    (folder / "digits.yaml").write_text(text, encoding="utf-8")
    named = {
        "state": STATE,
        "run": RUN,
        "same": SAME,
        "handle": "run",
        "table": "run.variants[['stage', 'output_size', 'metric', 'state']]",
        "load": "print(type(run.best('train').load().model).__name__, flambe.runs()[0].status)",
        "mistake": "flambe.load_config('digits.yaml', overrides={'train.max_stepz': 1})",
        "again": "experiment.run()",
        "slow": SLOW,
        "lives": LIVES,
    }
    # In the same kernel: it is usable after the interrupt.
    named |= {f"example {number}": text for number, text in enumerate(example())}
    run = execute(folder, *named.values(), interrupted=list(named).index("slow"))
    return dict(zip(named, run, strict=True))


def test_a_run_is_a_table_that_changes_in_place(cells: dict[str, Any]) -> None:
    assert errors_of(cells["run"]) == []
    # One output, which was replaced again and again: nothing is printed.
    (page,) = pages_of(cells["run"])
    assert len(cells["run"].outputs) == 1, cells["run"].outputs
    assert "finished" in page
    assert "1 of 1 variants done" in page
    assert "best 0." in page


def test_a_run_leaves_its_process_as_it_was(cells: dict[str, Any]) -> None:
    assert errors_of(cells["state"]) == []
    assert text_of(cells["same"]) == "{}\n{}\n{}\nTrue False\n"


def test_the_results_are_shown(cells: dict[str, Any]) -> None:
    (page,) = pages_of(cells["handle"])
    assert re.search("train.*output_size.*0.01", page, re.DOTALL)
    assert "output_size" in pages_of(cells["table"])[0]
    assert text_of(cells["load"]) == "Classifier finished\n"


def test_an_error_is_its_message(cells: dict[str, Any]) -> None:
    (mistake,) = errors_of(cells["mistake"])
    assert re.match(r"ConfigError: override 1:1:7: .*max_stepz", mistake)
    assert "did you mean 'max_steps'" in mistake
    (again,) = errors_of(cells["again"])
    assert "holds the results of an earlier run" in again
    assert "resume=True continues it; force=True moves it aside" in again
    assert "Traceback" not in again + mistake
    assert ".py" not in again + mistake


def test_an_interrupt_ends_the_run_and_not_the_kernel(cells: dict[str, Any]) -> None:
    (error,) = errors_of(cells["slow"])
    assert error.startswith("Interrupted: interrupted; finished variants are in ")
    assert "interrupted" in pages_of(cells["slow"])[0]
    assert text_of(cells["lives"]) == "interrupted ['interrupted'] True False\n"


def test_the_example_runs(cells: dict[str, Any]) -> None:
    shown = [cells[f"example {number}"] for number in range(len(example()))]
    assert [errors_of(cell) for cell in shown] == [[]] * len(shown)
    assert "finished" in pages_of(shown[1])[0]
    assert "output_size" in pages_of(shown[2])[0]
    assert "'lr'" in str(shown[3].outputs)
    assert "metric" in pages_of(shown[4])[0]
