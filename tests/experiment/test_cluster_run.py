"""An experiment on four real hosts, as people do it: looked at while it runs, one host lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flambe.progress import RunFolder, Status
from tests.experiment.farm import Farm, eventually, farm_on, figures, layout
from tests.metal.conftest import lent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.xdist_group("metal-experiment"),
]
CHROMIUM = shutil.which("chromium") or ""
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
GRID = """
grow: !crops.Growth
  rate: !g [0.1, 0.2, 0.3, 0.4]
  "size": !g [1, 2]
  steps: 12
  seconds: SECONDS
harvest: !crops.Harvest
  of: !@ grow
"""
TOP = "seed: 7\nmax_failures: 0\nreduce:\n  grow: 3\n"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, installed: Path | None) -> Iterator[Farm]:
    with (
        lent(4, layer=installed) as metal,
        farm_on(metal, tmp_path_factory.mktemp("farm")) as farm,
    ):
        yield farm


def browse(url: str) -> list[str]:
    """Open the site in a browser as it was printed; return what went wrong on its pages."""
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page()
        page.set_default_timeout(90_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        page.get_by_role("link", name="grow").first.wait_for()
        page.goto(f"{url.partition('/?')[0]}/stage/grow")
        for rate in ("0.1", "0.4"):
            page.get_by_text(re.compile(rf"(lr|rate)?.*{rate}")).first.wait_for()
        page.locator("#curves canvas, #curves svg").first.wait_for()
        page.goto(f"{url.partition('/?')[0]}/tensorboard")
        frame = page.frame_locator("iframe.tensorboard")
        frame.get_by_text(re.compile("height")).first.wait_for()
        frame.locator("line-chart, line-chart-component, scalar-card-component").first.wait_for()
        browser.close()
    return problems


def told(folder: RunFolder) -> list[tuple[Any, ...]]:
    """Return what came of the variants; how long a step took is part of what they are."""
    found = figures(folder).values()
    return sorted((one[0], one[1].rpartition("_")[0], *one[2:]) for one in found)


def files(folder: RunFolder) -> set[str]:
    """Return the files; how a state is written depends on whether torch is there."""
    names = (re.sub(r"_[0-9a-f]{8}/", "/", path) for path in layout(folder))
    return {re.sub(r"/state\.\w+$", "/state", name) for name in names}


def test_one_host_of_four_is_lost_and_the_results_are_those_of_one_machine(farm: Farm) -> None:
    assert CHROMIUM, "needs chromium"
    file = farm.write("crop", GRID.replace("SECONDS", "1.5"), more=TOP)
    run = farm.run(file)
    url = run.says(r"Report Site: (http\S+)").split()[-1]
    run.says(r"step 2 of", times=4)
    # What components say, their checkpoints and figures are there while it runs.
    folder = farm.output("crop")
    running = eventually(
        lambda: [
            v for v in folder.read_variants().values() if v.status is Status.RUNNING and v.step
        ],
        "variants that run",
    )
    assert {v.host for v in running} <= {"factory_1", "factory_2", "factory_3"}
    assert "step 1 of" in folder.log.read_text()
    place = folder.variant("grow", running[0].name)
    assert list(place.glob("checkpoint*/manifest.json"))
    assert (place / "metrics.jsonl").exists()
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert client.get(url.partition("?")[0]).status_code in (401, 403)
        assert client.get(url, follow_redirects=True).status_code == 200
    lost = next(v.host for v in running if v.host != "factory_1")
    farm.hosts[int(lost[-1])].kill()
    alone = farm.start(farm.write("crop", GRID.replace("SECONDS", "0.0"), more=TOP))
    assert browse(url) == []
    said = run.ends()
    assert said.count(f"{lost} is lost: 2 factories left") == 1
    variants = folder.read_variants().values()
    assert [v.status for v in variants if v.stage == "grow"] == [Status.FINISHED] * 8
    assert sum(v.status is Status.FINISHED for v in variants if v.stage == "harvest") == 3
    # Nothing was done by the orchestrator, and the lost host's work went on elsewhere.
    assert {v.host for v in variants if v.host} <= {"factory_1", "factory_2", "factory_3"}
    again = [v for v in variants if v.attempts > 1]
    assert again
    assert all(v.host != lost for v in again)
    fetched = farm.fetched("crop")
    alone.ends()
    here = RunFolder(farm.folder / "flambe-output" / "output__crop")
    assert told(here) == told(fetched)
    assert files(here) == files(fetched)
