"""The pages in a real browser: every one, of every kind of run, by mouse and by keyboard."""

from __future__ import annotations

import io
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error as PlaywrightError

from flambe.experiment.variants.expansion import Variant
from flambe.progress import RunFolder, StageState, Status
from flambe.report import create_app
from tests.experiment.lab import until
from tests.report.runs import FAILED, FINISHED, RUNNING, Runs, state_where
from tests.report.served import Served, child, free_port, serving, token_file
from tests.report.written import Written

CHROMIUM = shutil.which("chromium") or ""
pytestmark = [pytest.mark.integration, pytest.mark.skipif(not CHROMIUM, reason="needs chromium")]
TOKEN = "a-token-of-this-test"
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
NETWORK_CHANGED = "ERR_NETWORK_CHANGED"
EVIL = "<img src=x onerror=alert(1)>"


class Looking:
    """A page, and all that went wrong on it."""

    def __init__(self, context: Any, base: str) -> None:
        self.base = base
        self.page = context.new_page()
        self.problems: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._response)
        self.page.on("dialog", self._dialog)
        context.set_default_timeout(30_000)

    def _dialog(self, dialog: Any) -> None:
        self.problems.append("a dialog")
        dialog.dismiss()

    def _console(self, message: Any) -> None:
        # A site that ends before the page does breaks off its live stream.
        if message.type == "error" and "INCOMPLETE_CHUNKED" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _failed(self, request: Any) -> None:
        # A browser breaks off what a page still asks for when the page is left. What the site itself
        # refuses or drops has another reason, or a status.
        # A site that ends before the page does breaks off its live stream.
        if request.failure != "net::ERR_ABORTED" and "live" not in request.url:
            self.problems.append(f"failed: {request.url} {request.failure}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def go(self, path: str) -> Any:
        """Open a page.

        Chromium breaks off what it loads when an interface of this machine comes or goes, as those
        of the hosts of other tests do: then it is opened again.
        """
        for _ in range(5):
            before = len(self.problems)
            try:
                self.page.goto(self.base + path)
            except PlaywrightError as error:
                if NETWORK_CHANGED not in error.message:
                    raise
            else:
                if not any(NETWORK_CHANGED in problem for problem in self.problems[before:]):
                    break
            del self.problems[before:]
        return self.page

    def settled(self) -> None:
        """Wait until nothing is asked for any more, live streams aside."""
        page = self.page
        if page.locator("#curves").count():
            page.locator("#curves h2, #curves p").first.wait_for()
        if page.locator("#importance h2").count():
            page.get_by_text("Estimating …").wait_for(state="hidden")
        if page.locator("#figures").count():
            page.locator("#log > *").first.wait_for()
        page.wait_for_timeout(150)
        charts = "[...document.querySelectorAll('.chart:not([hidden])')]"
        drawn = f"{charts}.every((chart) => chart.querySelector('canvas'))"
        soon(lambda: page.evaluate(drawn), "the charts", 30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Looking]]:
    """Return what opens a page of a site; at the end, nothing may have gone wrong."""
    opened: list[tuple[Any, Looking]] = []

    def look(base: str, *, token: str = TOKEN, **options: Any) -> Looking:
        context = browser.new_context(**options)
        found = Looking(context, base)
        opened.append((context, found))
        found.go(f"/?token={token}")
        assert "token" not in found.page.url
        return found

    yield look
    for context, found in opened:
        found.page.wait_for_timeout(50)
        context.close()
    assert [found.problems for _, found in opened] == [[]] * len(opened)


class Sites:
    """The sites of some runs: name → address and folder."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.bases: dict[str, str] = {}
        self.folders: dict[str, RunFolder] = {}

    def add(self, name: str, folder: RunFolder) -> str:
        """Serve a run."""
        base = self.stack.enter_context(serving(create_app(folder.root, token=TOKEN)))
        self.bases[name], self.folders[name] = base, folder
        return base

    def first(self, name: str, stage: str) -> str:
        """Return the address of the best variant of a stage."""
        variants = self.folders[name].read_variants().values()
        best = max((v for v in variants if v.stage == stage), key=lambda v: v.best or 0.0)
        return f"/variant/{best.id}"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Real runs: a finished, a failed, an interrupted one, one that goes on, and none."""
    root = tmp_path_factory.mktemp("runs")
    runs = Runs(root)
    with ExitStack() as stack:
        stack.callback(runs.close)
        started = {
            "running": runs.start("running", RUNNING),
            "interrupted": runs.start("interrupted", RUNNING),
            "failed": runs.start("failed", FAILED),
            "finished": runs.start("finished", FINISHED, more="reduce: {train: 2}"),
        }
        for name in ("running", "interrupted"):
            state_where(
                started[name][0], lambda state: state.stage("walk").counts.get("running") == 1
            )
        started["interrupted"][1].kill()
        for name in ("finished", "failed", "interrupted"):
            started[name][1].wait(120)
        sites = Sites(stack)
        for name, (folder, _) in started.items():
            sites.add(name, folder)
        sites.add("empty", RunFolder(root / "output__nothing"))
        yield sites


def numbers(page: Any, column: str) -> list[float]:
    """Return the figures of a column of the table of variants."""
    heads = [text.strip(" ↑↓") for text in page.locator("#table thead th").all_inner_texts()]
    cells = page.locator(f"#table tbody td:nth-child({heads.index(column) + 1})")
    return [float(text) for text in cells.all_inner_texts() if text]


def soon(condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
    """Wait for a page, which may be loaded anew meanwhile."""
    from playwright.sync_api import Error

    def holds() -> Any:
        try:
            return condition()
        except (Error, ValueError):
            return False

    until(holds, what, seconds)


def drawn(page: Any, place: str) -> int:
    """Return how many pixels of the charts of a place are not empty."""
    script = """place => [...document.querySelectorAll(`${place} canvas`)].reduce((sum, canvas) => {
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let found = 0;
      for (let i = 3; i < data.length; i += 4) if (data[i]) found += 1;
      return sum + found; }, 0)"""
    return int(page.evaluate(script, place))


def count(page: Any) -> str:
    return str(page.locator("#count").inner_text())


# -- a finished run -----------------------------------------------------------------------------


def test_a_finished_run_is_walked_through(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"])
    page = looking.page
    assert page.locator("#run-status").inner_text() == "finished"
    assert "20 of 20 variants" in page.locator("#summary").inner_text()
    assert page.locator("#live").inner_text() == ""  # nothing goes on
    nodes = page.locator("#graph a.node")
    assert nodes.count() == 5
    assert page.locator("#graph path.edge").count() == 3
    page.get_by_role("link", name="train: finished, 12 of 12").click()
    page.wait_for_url("**/stage/train")
    looking.settled()
    assert count(page) == "12"
    assert page.locator("#table .kept").count() == 2
    page.locator("#table tbody tr a").first.click()
    page.wait_for_url("**/variant/*")
    looking.settled()
    assert "height: 0.8" in page.locator("pre.code").inner_text()
    assert drawn(page, "#figures") > 200
    assert "4.98" in page.locator("#state").inner_text()
    page.get_by_role("link", name="TensorBoard").first.click()
    page.wait_for_url("**/tensorboard")
    page.get_by_role("link", name="Downloads").click()
    page.wait_for_url("**/downloads")
    page.get_by_role("link", name="judge").click()
    page.wait_for_url("**/stage/judge")
    looking.settled()
    assert "20 skipped" in page.locator("#stage-state").inner_text()
    page.get_by_role("link", name="log", exact=True).click()
    page.wait_for_url("**/console?stage=judge")
    assert page.locator("select[name=stage]").input_value() == "judge"
    page.get_by_role("link", name="Overview").click()
    page.locator("#best table").first.wait_for()


def test_the_table_is_sorted_and_filtered_by_keyboard(
    sites: Sites, look: Callable[..., Looking]
) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/stage/train")
    looking.settled()
    assert numbers(page, "best") == sorted(numbers(page, "best"), reverse=True)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    for text, wanted in (
        ("height=0.8", 3), ("best>2.5", 5), ("height<=0.2 bonus=0.01", 2), ("state=kept", 2),
        ("height!=0.1 bonus>0.02", 3), ("finished", 12), ("nonsense", 0), ("unknown=3", 0), ("", 12),
    ):  # fmt: skip
        page.locator("#filter").fill(text)
        shown = f"{wanted} of 12" if wanted < 12 else "12"
        soon(lambda: count(page) == shown, f"{text}: {shown}", 5)  # noqa: B023
    page.locator("#filter").fill("height=0.8")
    for _ in range(12):  # tab to the head of a column
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "bonus":
            break
    page.keyboard.press("Enter")
    assert numbers(page, "bonus") == [0.03, 0.02, 0.01]
    page.keyboard.press("Enter")
    assert numbers(page, "bonus") == [0.01, 0.02, 0.03]
    assert page.locator("#table th[aria-sort=ascending]").inner_text().startswith("bonus")
    page.reload()  # the address keeps what was chosen
    looking.settled()
    assert numbers(page, "bonus") == [0.01, 0.02, 0.03]
    page.locator("#filter").fill("")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_curves_answer_to_the_mouse_and_to_rows(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/stage/train")
    looking.settled()
    soon(lambda: drawn(page, "#curves") > 1000, "the curves", 10)
    note = page.locator("#curves .note")
    page.locator("#table tbody tr").nth(1).hover()
    assert note.inner_text() == "height=0.8 bonus=0.02: best 4.92"
    page.locator("#curves .chart").scroll_into_view_if_needed()
    box = page.locator("#curves .chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 25, box["y"] + 26)
    soon(lambda: "4.98 at step 6" in note.inner_text(), "the end of the best curve", 10)
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    soon(lambda: note.inner_text().startswith("point at"), "nothing is pointed at", 10)
    page.mouse.click(box["x"] + box["width"] - 25, box["y"] + 26)
    page.wait_for_url("**/variant/*")
    looking.settled()


def test_other_figures_are_drawn_too(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/stage/talk")
    looking.settled()
    assert page.locator("#curves option").all_inner_texts() == [
        "metric",
        "figure",
        "many/one",
        "many/two",
    ]
    page.locator("#curves select").select_option("many/two")
    soon(
        lambda: (
            "curves?tag=many%2Ftwo"
            in str(
                page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
            )
        ),
        "it is asked for",
        10,
    )
    page.wait_for_timeout(300)
    assert drawn(page, "#curves") > 500


def test_an_axis_is_brushed_and_all_are_shown_again(
    sites: Sites, look: Callable[..., Looking]
) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/stage/train")
    looking.settled()
    soon(lambda: drawn(page, "#parallel") > 1000, "the axes", 10)
    chart = page.locator("#parallel .chart")
    chart.scroll_into_view_if_needed()
    for _ in range(2):
        box = chart.bounding_box()
        x = box["x"] + box["width"] - 70  # the axis of the metric
        page.mouse.move(x, box["y"] + 46)
        page.mouse.down()
        page.mouse.move(x, box["y"] + 60)
        page.mouse.move(x, box["y"] + 0.4 * box["height"], steps=5)
        page.mouse.up()
        soon(lambda: "of 12" in count(page), "some are chosen", 10)
        chosen = numbers(page, "best")
        assert min(chosen) > 2.4
        assert len(chosen) < 12
        page.get_by_role("button", name="Show all again").click()
        soon(lambda: count(page) == "12", "all are shown", 10)
        page.get_by_text("draw on an axis to choose").wait_for()


def test_importance_names_its_estimator(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/stage/train")
    looking.settled()
    text = page.locator("#importance").inner_text()
    assert "permutation importance of a random forest" in text.lower()
    names = page.locator("#importance .name").all_inner_texts()
    assert names == ["height", "bonus"]
    assert all("±" in text for text in page.locator("#importance .value").all_inner_texts())
    page = looking.go("/stage/talk")
    looking.settled()
    assert "Too few variants to tell: 2 of them" in page.locator("#importance").inner_text()


def test_the_console_searches_and_filters(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/console")
    entries = page.locator("#log .entry")
    soon(lambda: entries.count() == 24, "all lines", 10)
    page.locator("select[name=level]").select_option("WARNING")
    soon(lambda: entries.count() == 6, "the warnings", 10)
    page.locator("input[name=search]").fill("BOB2")
    soon(lambda: entries.count() == 1, "one of them", 10)
    assert page.locator("#log mark").inner_text() == "bob2"
    assert page.url.endswith("?level=WARNING&search=BOB2")
    page.reload()
    soon(lambda: entries.count() == 1, "the address keeps it", 10)
    page = looking.go("/console?stage=train")
    soon(lambda: "nothing here" in page.locator("#log").inner_text(), "train said nothing", 10)
    talk = sites.first("finished", "talk").replace("/variant/", "/console?variant=")
    page = looking.go(talk)
    soon(lambda: entries.count() == 12, "the lines of a variant", 10)


def test_files_are_taken_home(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"], accept_downloads=True)
    page = looking.go("/downloads")
    with page.expect_download() as waiting:
        page.locator("tr", has_text="the whole run").get_by_role("link").nth(1).click()
    names = zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes())).namelist()
    assert waiting.value.suggested_filename == "output__finished-logs.zip"
    assert "output__finished/run.log" in names
    page = looking.go(sites.first("finished", "train"))
    looking.settled()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="config.yaml").first.click()
    assert "!pieces.Curve" in Path(waiting.value.path()).read_text()


# -- TensorBoard --------------------------------------------------------------------------------


def shown_runs(page: Any) -> set[str]:
    frame = page.frame_locator("iframe.tensorboard")
    names = frame.locator("runs-data-table tb-data-table-content-row").all_inner_texts()
    return {match for text in names for match in re.findall(r"\b(\w+)/", text)[:1]}


def test_tensorboard_shows_what_is_asked_for(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["finished"])
    page = looking.go("/stage/talk")
    looking.settled()
    page.get_by_role("link", name="TensorBoard").nth(1).click()
    page.wait_for_url("**/tensorboard?stage=talk")
    frame = page.frame_locator("iframe.tensorboard")
    frame.locator("line-chart, line-chart canvas, line-chart svg").first.wait_for(timeout=60_000)
    soon(lambda: shown_runs(page) == {"talk"}, "the runs of the stage", 30)
    soon(lambda: frame.locator("card-view").count() >= 3, "its cards", 30)
    # The process that draws them is killed, and comes back.
    process = child("flambe.report.tensorboard")
    process.kill()
    process.wait()
    page = looking.go("/tensorboard?stage=train")
    soon(lambda: shown_runs(page) == {"train"}, "the runs of another stage", 60)
    looking.problems = [one for one in looking.problems if "tensorboard/app" not in one]


# -- runs that go on ----------------------------------------------------------------------------


def mark(page: Any) -> Callable[[], bool]:
    """Mark a page, to see later that it was not loaded anew."""
    page.evaluate("globalThis.marked = true")
    return lambda: bool(page.evaluate("globalThis.marked === true"))


def test_a_running_run_is_live(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["running"])
    page, same = looking.page, mark(looking.page)
    assert page.locator("#run-status").inner_text() == "running"
    soon(lambda: page.locator("#live").inner_text() == "live", "the stream", 10)
    assert page.get_by_role("link", name=re.compile(r"walk: running, \d of 2")).count() == 1
    last = page.locator("#best tbody td:nth-child(3)").first
    before = last.inner_text()
    soon(lambda: last.inner_text() != before, "the next figure", 10)
    assert page.locator("#hosts tbody td").nth(1).inner_text() == "1"
    assert same()

    page = looking.go("/stage/walk")
    same = mark(page)
    looking.settled()
    steps = numbers(page, "steps")[0]
    soon(lambda: numbers(page, "steps")[0] >= steps + 3, "more steps", 10)
    assert same()

    page = looking.go(sites.first("running", "walk"))
    same = mark(page)
    looking.settled()
    state = page.locator("#state")
    before = state.inner_text()
    soon(lambda: state.inner_text() != before, "its state goes on", 10)
    assert same()


def test_a_log_is_followed_and_paused(look: Callable[..., Looking], tmp_path: Path) -> None:
    run = Written(tmp_path)
    run.add("a" * 16, rate=1)
    for number in range(300):
        run.line("a" * 16, f"early {number}")
    with serving(create_app(tmp_path, token=TOKEN)) as base:
        page = look(base).go("/console")
        entries = page.locator("#log .entry")
        soon(lambda: entries.count() == 300, "what was said before", 10)
        run.line("a" * 16, "a new one")
        soon(lambda: "a new one" in entries.last.inner_text(), "what is said now", 10)
        page.get_by_role("button", name="Pause").click()
        run.line("a" * 16, "while paused")
        soon(lambda: "1 new lines" in page.locator("#log-state").inner_text(), "it is counted", 10)
        assert "while paused" not in page.locator("#log").inner_text()
        page.get_by_role("button", name="Follow").click()
        soon(lambda: "while paused" in entries.last.inner_text(), "it is shown", 10)
        assert page.evaluate("document.getElementById('log').scrollTop") > 100
        page.locator("#log").hover()
        page.mouse.wheel(0, -400)  # who scrolls up is left there
        page.get_by_role("button", name="Follow").wait_for()


@pytest.mark.faults
def test_a_lost_connection_is_caught_up_with(look: Callable[..., Looking], tmp_path: Path) -> None:
    run = Written(tmp_path / "output__trial")
    run.add("a" * 16, rate=1)
    run.step("a" * 16, 1, 0.1)
    port = free_port()
    options = ["--port", port, "--token-file", token_file(tmp_path, TOKEN)]
    site = Served(run.folder.root, *options)
    looking = look(site.base)
    page = looking.go("/stage/train")
    looking.settled()
    soon(lambda: numbers(page, "steps") == [1], "the first step", 10)
    # The browser loses its network.
    same = mark(page)
    page.context.set_offline(True)
    run.step("a" * 16, 2, 0.2)
    page.wait_for_timeout(700)
    page.context.set_offline(False)
    soon(lambda: numbers(page, "steps") == [2], "what came meanwhile", 20)
    # The site is killed, and started again.
    site.kill()
    soon(lambda: page.locator("#live").inner_text() == "reconnecting", "it is said", 10)
    run.step("a" * 16, 3, 0.3)
    with Served(run.folder.root, *options):
        soon(lambda: numbers(page, "steps") == [3], "the page comes back by itself", 30)
        assert not same()
        soon(lambda: page.locator("#live").inner_text() == "live", "it is live", 10)
        run.step("a" * 16, 4, 0.4)
        soon(lambda: numbers(page, "steps") == [4], "and goes on", 10)
    refused = (
        "ERR_CONNECTION",
        "ERR_INTERNET",
        "ERR_INCOMPLETE",
        "ERR_EMPTY",
        "ERR_NETWORK",
        "Failed to fetch",
    )
    looking.problems = [one for one in looking.problems if not any(r in one for r in refused)]


@pytest.mark.faults
def test_a_run_begun_anew_is_shown_on_an_open_page(
    look: Callable[..., Looking], tmp_path: Path
) -> None:
    runs = Runs(tmp_path)
    try:
        folder = runs.finished("again", "train: !pieces.Fixed {value: !g [1.0, 2.0]}")
        with serving(create_app(folder.root, token=TOKEN)) as base:
            looking = look(base)
            page = looking.page
            soon(lambda: "2 of 2" in page.locator("#summary").inner_text(), "the first run", 10)
            runs.finished("again", "train: !pieces.Fixed {value: !g [1.0, 2.0, 3.0]}", "--force")
            soon(lambda: "3 of 3" in page.locator("#summary").inner_text(), "the second run", 40)
            looking.settled()
            shutil.rmtree(folder.root)
            soon(lambda: "Nothing has run" in page.locator("main").inner_text(), "it is gone", 40)
    finally:
        runs.close()


def test_a_search_adds_variants_to_an_open_page(
    look: Callable[..., Looking], tmp_path: Path
) -> None:
    run = Written(tmp_path)
    run.add("a" * 16, rate=1)
    run.step("a" * 16, 1, 0.1)
    with serving(create_app(tmp_path, token=TOKEN)) as base:
        looking = look(base)
        page = looking.go("/stage/train")
        looking.settled()
        same = mark(page)
        page.locator("#filter").fill("rate>=1")
        run.add("b" * 16, rate=2, other="x")
        run.step("b" * 16, 1, 0.9)
        soon(lambda: numbers(page, "rate") == [2, 1], "another variant", 10)
        assert same()
        looking.settled()


# -- runs that ended otherwise ------------------------------------------------------------------


def test_a_failed_run_says_why(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["failed"])
    page = looking.page
    assert page.locator("#run-status").inner_text() == "failed"
    assert "This run failed" in page.get_by_role("alert").inner_text()
    assert "no luck at step 2" in page.locator("#failures").inner_text()
    page.locator("#failures a").first.click()
    page.wait_for_url("**/variant/*")
    looking.settled()
    assert "It failed." in page.get_by_role("alert").inner_text()
    traceback = page.locator("details pre").inner_text()
    assert "Traceback" in traceback
    assert "raise ValueError" in traceback
    page = looking.go("/stage/train")
    looking.settled()
    assert "1 failed" in page.locator("#stage-state").inner_text()
    page.locator("#filter").fill("state=failed")
    soon(lambda: count(page) == "1 of 2", "the failed one", 5)


def test_an_interrupted_run_says_how_to_go_on(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["interrupted"])
    page = looking.page
    soon(lambda: page.locator("#run-status").inner_text() == "interrupted", "its state", 10)
    assert "--resume" in page.locator("#notice").inner_text()
    assert page.locator("#graph a.node.interrupted").count() == 1
    page = looking.go("/stage/walk")
    looking.settled()
    assert "interrupted" in page.locator("#stage-state").inner_text()


def test_no_run_has_a_page_too(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(sites.bases["empty"])
    page = looking.page
    assert "Nothing has run in this folder yet" in page.locator("main").inner_text()
    assert page.locator("#run-status").inner_text() == "nothing yet"
    for path in ("/console", "/downloads"):
        looking.go(path)
        assert page.locator("#run-status").inner_text() == "nothing yet"
        looking.page.wait_for_timeout(300)
    assert "variants" not in looking.go("/").locator("#summary").inner_text()
    looking.go("/stage/none")
    assert "There is no such stage" in looking.page.locator("main").inner_text()
    looking.problems = [one for one in looking.problems if "404" not in one]


# -- what is odd, long or much ------------------------------------------------------------------


def test_odd_names_and_values_are_text_and_break_nothing(
    look: Callable[..., Looking], tmp_path: Path
) -> None:
    run = Written(tmp_path, [StageState("train", "Walk", total=4)])
    for number in range(12):
        more: dict[str, Any] = {f"parameter_{n}": n * number for n in range(28)}
        odd: dict[str, Any] = {
            EVIL: f"{EVIL}{number}",
            "long": "x" * 400,
            "tiny": 1e-08 * (number + 1),
        }
        run.add(f"{number:016}", **{**odd, **more})
        run.line(f"{number:016}", f"{EVIL} said {'y' * 500}")
        for step in (1, 2, 3):
            run.step(f"{number:016}", step, 1e-08 * step * (number + 1))
    run.done(f"{0:016}", Status.FAILED, error=EVIL, traceback=EVIL * 20)
    with serving(create_app(tmp_path, token=TOKEN)) as base:
        for size in ({"width": 1280, "height": 800}, {"width": 390, "height": 844}):
            looking = look(base, viewport=size)
            for path in ("/", "/stage/train", f"/variant/{0:016}", "/console", "/downloads"):
                page = looking.go(path)
                looking.settled()
                assert page.locator("main img[src=x]").count() == 0
                assert EVIL in page.locator("main").inner_text() or path == "/downloads"
                sideways(page, path)
            page = looking.go("/stage/train")
            looking.settled()
            assert "3.6e-7" in page.locator("#table tbody tr").first.inner_text()
            assert "Too few variants" in page.locator("#importance").inner_text()


def sideways(page: Any, path: str) -> None:
    width = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert width[0] <= width[1], f"{path} scrolls sideways: {width}"


def test_thirty_stages_and_many_variants(look: Callable[..., Looking], tmp_path: Path) -> None:
    stages = [
        StageState(f"stage_{n}", "Walk", links=[f"stage_{n - 1}"] if n else [], total=1)
        for n in range(30)
    ]
    run = Written(tmp_path, stages)
    for number in range(150):
        run.add(f"{number:016}", stage="stage_0", rate=number, kind="ab"[number % 2])
        for step in (1, 2, 3):
            run.step(f"{number:016}", step, number * step)
    with serving(create_app(tmp_path, token=TOKEN)) as base:
        looking = look(base)
        page = looking.page
        assert page.locator("#graph a.node").count() == 30
        sideways(page, "/")
        wide = "(g => g.scrollWidth > g.clientWidth)(document.getElementById('graph'))"
        soon(lambda: page.evaluate(wide), "the graph scrolls", 10)
        page = looking.go("/stage/stage_0")
        looking.settled()
        assert page.locator("#table tbody tr").count() == 100
        page.get_by_role("button", name="Show 50 more").click()
        assert page.locator("#table tbody tr").count() == 150
        soon(lambda: drawn(page, "#curves") > 1000, "the curves", 10)
        page.mouse.move(1, 1)
        assert "coloured by the best figure" in page.locator("#curves .note").inner_text()
        before = drawn(page, "#curves")
        page.locator("#table tbody tr").nth(2).hover()
        assert "rate=147 kind=b: best 441" in page.locator("#curves .note").inner_text()
        # It is drawn above the others.
        soon(lambda: drawn(page, "#curves") > before, "the one that is pointed at", 10)
        page.locator("#curves .chart").scroll_into_view_if_needed()
        box = page.locator("#curves .chart").bounding_box()
        page.mouse.move(box["x"] + box["width"] - 22, box["y"] + 25)
        soon(
            lambda: "at step 3" in page.locator("#curves .note").inner_text(),
            "by the mouse",
            10,
        )


def figured(root: Path) -> Written:
    """Write a run of variants with options of several kinds, one of which failed."""
    run = Written(root / "output__trial", [StageState("train", "Trainer", total=12)])
    for number in range(12):
        identity = f"{number:02}" + "ab" * 7
        options: dict[str, Any] = {"lr": 1e-5 * 3.0**number, "size": [32, 64, 128][number % 3]}
        run.add(identity, f"v{number}", share=0.1 + 0.2 + number, kind="ab"[number % 2], **options)
        run.step(identity, 1, float(number))
        if number == 11:
            run.done(identity, Status.FAILED, error="it ended\nall that it said")
        else:
            run.done(identity)
            run.folder.checkpoint("train", f"v{number}").mkdir(parents=True)
    run.end()
    return run


def test_a_row_begins_with_its_options_and_ends_with_its_id(
    look: Callable[..., Looking], tmp_path: Path
) -> None:
    run = figured(tmp_path)
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        looking = look(base)
        page = looking.go("/stage/train")
        looking.settled()
        heads = [text.strip(" ↑↓") for text in page.locator("#table thead th").all_inner_texts()]
        assert (heads[:4], heads[-1]) == (["share", "kind", "lr", "size"], "id")
        row = page.locator("#table tbody tr").nth(1)
        assert row.locator("td").first.inner_text() == "10.3"
        assert row.locator("td").last.inner_text() == "10ababab"
        row.locator("td").first.get_by_role("link").click()
        page.wait_for_url("**/variant/10*")
        assert "share 10.3" in page.locator("h1").inner_text()
        checkpoint = run.folder.checkpoint("train", "v10")
        assert f"flambe.load('{checkpoint}')" in page.locator("main").inner_text()
        # Of one that failed nothing can be loaded; all of its reason is told.
        page = looking.go("/variant/11" + "ab" * 7)
        looking.settled()
        assert "all that it said" in page.locator("#error").inner_text()
        assert "flambe.load" not in page.locator("main").inner_text()
        page = looking.go("/")
        assert page.locator("#run-status").inner_text() == "finished with 1 failed"
        assert "partly" in str(page.locator("#run-status .pill").get_attribute("class"))
        assert page.locator("#best tbody tr").first.locator("td").nth(1).inner_text() == "10"


AXES = """async () => {
  const { parallel } = await import(document.documentElement.dataset.base + "/static/js/charts.js");
  const row = (lr, size, share, one, kind) => ({ choices: { lr, size, share, one, kind }, best: lr });
  const rows = [];
  for (let i = 0; i < 12; i += 1)
    rows.push(row(1e-5 * 3 ** i, [32, 64, 128][i % 3], 0.1 + 0.2 + i, 7, i % 2 ? "a" : true));
  const drawn = parallel(rows, ["lr", "size", "share", "one", "kind"], "best");
  return drawn.parallelAxis.map(({ name, type, min, max, axisLabel }) =>
    [name, type, (axisLabel.customValues || [min, max]).map((value) => axisLabel.formatter(value ?? ""))]);
}"""


def test_axes_show_numbers_as_numbers(look: Callable[..., Looking], tmp_path: Path) -> None:
    run = figured(tmp_path)
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        looking = look(base)
        page = looking.go("/stage/train")
        looking.settled()
        axes = {name: (kind, labels) for name, kind, labels in page.evaluate(AXES)}
    assert axes["lr"] == ("log", ["1e-5", "1.77"])
    assert axes["size"] == ("log", ["32", "64", "128"])
    assert axes["share"] == ("value", ["0.3", "11.3"])
    assert axes["one"] == ("value", ["7"])
    assert axes["kind"][0] == "category"
    assert axes["best"][0] == "value"


def test_a_table_on_a_phone_says_that_it_scrolls(
    look: Callable[..., Looking], tmp_path: Path
) -> None:
    run = figured(tmp_path)
    hint = "getComputedStyle(document.getElementById('table'), '::before').content"
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        looking = look(base)
        page = looking.page
        page.set_viewport_size({"width": 390, "height": 844})
        looking.go("/stage/train")
        looking.settled()
        soon(lambda: "scroll sideways" in page.evaluate(hint), "the hint", 10)
        sideways(page, "/stage/train")
        page.set_viewport_size({"width": 1600, "height": 900})
        soon(lambda: page.locator("#table.wide").count() == 0, "there is room", 10)


# -- for everyone -------------------------------------------------------------------------------

PAGES = ("/", "/stage/train", "VARIANT", "/console", "/downloads", "/tensorboard")


def every_page(sites: Sites, looking: Looking) -> Iterator[tuple[str, Any]]:
    for path in PAGES:
        path = sites.first("finished", "talk") if path == "VARIANT" else path  # noqa: PLW2901
        page = looking.go(path)
        looking.settled()
        yield path, page


def test_nothing_scrolls_sideways_on_a_phone(sites: Sites, look: Callable[..., Looking]) -> None:
    looking = look(
        sites.bases["finished"],
        viewport={"width": 360, "height": 740},
        is_mobile=True,
        has_touch=True,
    )
    for path, page in every_page(sites, looking):
        sideways(page, path)
    looking.problems = [one for one in looking.problems if "tensorboard/app" not in one]


CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || node.closest("script, noscript, .hidden, .skip, title, option")) continue;
    if (!node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const svg = node instanceof SVGElement;
    const front = light(parse(svg ? style.fill : style.color));
    const box = svg && node.closest("a")?.querySelector("rect.box");
    const back = light(box ? parse(getComputedStyle(box).fill) : ground(node));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${node.tagName}.${node.getAttribute("class")} ${walk.currentNode.textContent.trim().slice(0, 30)}`);
  }
  for (const node of document.querySelectorAll("input")) {
    const front = light(parse(getComputedStyle(node, "::placeholder").color));
    const back = light(ground(node));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} placeholder ${node.placeholder}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(sites: Sites, look: Callable[..., Looking], scheme: str) -> None:
    """WCAG AA: 4.5 to 1."""
    looking = look(sites.bases["finished"], color_scheme=scheme)
    for path, page in every_page(sites, looking):
        assert page.evaluate(CONTRAST) == [], path
    for name in ("failed", "running", "interrupted", "empty"):
        other = look(sites.bases[name], color_scheme=scheme)
        other.page.wait_for_timeout(300)
        assert other.page.evaluate(CONTRAST) == [], name
    if scheme == "dark":  # the reader may choose
        page = looking.go("/")
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.get_by_role("button", name="Switch between light and dark").click()
        page.reload()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        assert page.evaluate(CONTRAST) == []
    looking.problems = [one for one in looking.problems if "tensorboard/app" not in one]


def test_every_control_has_a_name_and_is_reached_by_keyboard(
    sites: Sites, look: Callable[..., Looking]
) -> None:
    looking = look(sites.bases["finished"])
    for path, page in every_page(sites, looking):
        nameless = page.evaluate("""() => [...document.querySelectorAll("a, button, input, select, iframe, svg[role], meter, progress")]
          .filter((node) => !(node.innerText || node.title || node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim()))
          .map((node) => node.outerHTML.slice(0, 80))""")
        assert nameless == [], path
        if path in ("/", "/stage/train"):
            page.evaluate("document.activeElement.blur()")
            reached = set()
            for _ in range(60):
                page.keyboard.press("Tab")
                reached.add(
                    page.evaluate(
                        "(document.activeElement.innerText ?? document.activeElement.textContent).trim().slice(0, 20)"
                    )
                )
            assert {"Skip to the content", "Console"} <= reached
            assert any(text.startswith("judge" if path == "/" else "bonus") for text in reached)
    looking.problems = [one for one in looking.problems if "tensorboard/app" not in one]


def test_a_stale_result_is_marked(look: Callable[..., Looking], tmp_path: Path) -> None:
    run = Written(tmp_path / "output__trial").walked(2)
    stale, fresh = run.journal.variants
    run.journal.change(stale, status=Status.REUSED, stale="code of ext.Net changed")
    run.journal.change(fresh, reason="resource 'text' changed")
    run.end()
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        looking = look(base)
        page = looking.go("/stage/train")
        looking.settled()
        assert page.locator("#table .stale").get_attribute("title") == "code of ext.Net changed"
        page.locator("#filter").fill("state=stale")
        soon(lambda: count(page) == "1 of 2", "the stale one", 5)
        looking.go(f"/variant/{stale}")
        looking.settled()
        assert "stale" in page.locator("#state").inner_text()
        assert "used again all the same: code of ext.Net" in page.locator("#reuse").inner_text()
        looking.go(f"/variant/{fresh}")
        looking.settled()
        assert "Why it was run: resource 'text' changed" in page.locator("#reuse").inner_text()


def test_a_figure_that_is_nan_is_shown_and_ranks_last(
    look: Callable[..., Looking], tmp_path: Path
) -> None:
    run = Written(tmp_path / "output__trial", [StageState("train", "Walk", total=6)])
    figures = {"a": math.nan, "b": 0.5, "c": None, "d": -math.inf, "e": 0.7, "f": math.inf}
    for name, figure in figures.items():
        run.add(name * 16, rate=name)
        run.step(name * 16, 1, figure)
        run.done(name * 16)
    run.end()
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        looking = look(base)
        page = looking.go("/stage/train")
        looking.settled()

        def column(title: str) -> list[str]:
            heads = page.locator("#table th").all_inner_texts()
            at = [head.strip(" ↑↓") for head in heads].index(title)
            rows = page.locator("#table tbody tr").all()
            return [row.locator("td").nth(at).inner_text() for row in rows]

        page.get_by_role("button", name="last").click()
        assert column("last") == ["inf", "0.7", "0.5", "-inf", "nan", ""]
        page.get_by_role("button", name="last").click()
        assert column("last") == ["-inf", "0.5", "0.7", "inf", "nan", ""]
        page.locator("#filter").fill("last=nan")
        soon(lambda: column("rate") == ["a"], "the one that is NaN", 5)


def test_seeds_are_shown_by_their_mean(look: Callable[..., Looking], tmp_path: Path) -> None:
    run = Written(tmp_path / "output__seeds")
    figures = {0.1: (0.5, 0.7), 0.2: (0.7, 0.9), 0.3: (0.99, None)}
    for rate, metrics in figures.items():
        for seed, metric in enumerate(metrics):
            identity = f"{rate}-{seed}"
            choices = {"rate": rate, "seed": seed}
            variant = Variant(
                identity, "train", identity, None, choices, seed=seed, group=f"of {rate}"
            )
            run.journal.add(variant)
            status = Status.FAILED if metric is None else Status.FINISHED
            run.journal.change(identity, status=status, metric=metric, best=metric, step=1)
    run.journal.write()
    with serving(create_app(run.folder.root, token=TOKEN)) as base:
        looking = look(base)
        looking.go("/stage/train")
        section = looking.page.locator("#seeds")
        section.wait_for()
        rows = [
            [cell.strip() for cell in row.locator("td").all_inner_texts()][:3]
            for row in section.locator("tbody tr").all()
        ]
        assert rows == [
            ["0.2", "0.8 ± 0.14", "2"],
            ["0.1", "0.6 ± 0.14", "2"],
            ["0.3", "0.99", "1 of 2"],
        ]
        assert section.locator("thead").inner_text().split()[0] == "rate"
        looking.page.screenshot(path=str(tmp_path / "seeds.png"))
        # A figure that comes later changes the mean without a reload.
        run.journal.change("0.3-1", status=Status.FINISHED, metric=0.97, best=0.97, step=1)
        until(lambda: "0.98 ± 0.014" in section.inner_text(), "the new mean", 20)
