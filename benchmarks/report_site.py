"""The Report Site of a large run: 2,000 variants of 200 points each, and a log of 1 GB.

The run is written by what writes runs. The pages are opened in Chromium, each with an empty cache:
when something is painted first, and when the table and the curves are there. One variant then makes
a step: how many bytes a page is told of it. The log is searched and followed while the memory of the
site is looked at. TensorBoard loads the same run, for comparison.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

import common
from flambe.experiment.variants.expansion import Variant
from flambe.logging.events import Record
from flambe.progress import StageState, Status
from tests.report.served import Served, events, free_port
from tests.report.written import Written

VARIANTS, POINTS, LOG = 2_000, 200, 1 << 30
REPEATS = 3
MOST_MEMORY = 300 << 20
MOST_UPDATE = 2_000  # bytes
CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
# When something is painted first, in milliseconds since the page was asked for.
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
DRAWN = """() => {
  const canvas = document.querySelector("#curves canvas");
  if (!canvas || !document.querySelectorAll("#table tbody tr").length) return false;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let found = 0;
  for (let i = 3; i < data.length; i += 40) if (data[i]) found += 1;
  return found > 2000;
}"""


def write(folder: Path) -> Written:
    """Write the run, TensorBoard's events included."""
    run = Written(folder, [StageState("train", "Trainer", total=VARIANTS)], name="large")
    drawn = random.Random(0)
    for number in range(VARIANTS):
        identity = f"{number:016x}"
        choices = {
            "lr": 10 ** drawn.uniform(-5, -1),
            "size": drawn.choice([64, 128, 256]),
            "dropout": drawn.random(),
        }
        variant = Variant(identity, "train", f"variant-{number}", None, choices)
        run.journal.add(variant, attempts=1, host="here", started=time.time())
        run.recorder.open(identity, f"train/{variant.name}", f"train {number}")
        height, best = 1 - abs(math.log10(choices["lr"]) + 3) / 3, 0.0
        records = []
        for step in range(1, POINTS + 1):
            metric = height * (1 - 0.98**step) + drawn.gauss(0, 0.01)
            best = max(best, metric)
            # As Journal.change does, without writing the state 400,000 times.
            run.journal._append({"id": identity, "step": step, "metric": metric, "best": best})
            records.append(Record(identity, "scalar", "metric", metric, step, time.time()))
        run.journal._append({"id": identity, "status": Status.FINISHED, "ended": time.time()})
        run.recorder.write([*records, Record(identity, "end", "", None, None, 0.0)])
    run.journal.write()
    return run


def write_log(path: Path) -> None:
    """Write 1 GB of lines, of which one in a million holds what is searched."""
    lines = [
        f"2026-01-02 03:04:{n % 60:02} INFO    train lr={n} | loss {n / 7:.4f} at step {n}, and nothing more to say"
        for n in range(10_000)
    ]
    block = ("\n".join(lines) + "\n").encode()
    with open(path, "ab") as stream:
        stream.write(b"2026-01-02 03:04:05 ERROR   train lr=1 | the needle in the hay\n")
        while stream.tell() < LOG:
            stream.write(block)


@contextlib.contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Give the memory of a process, and the most of it at the end."""
    process, most, stop = psutil.Process(pid), [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def page(browser: Any, site: Served, path: str, ready: str) -> tuple[float, float]:
    """Open a page with an empty cache; return the seconds to its first paint, and until it is ready."""
    context = browser.new_context()
    context.set_default_timeout(120_000)
    opened = context.new_page()
    opened.goto(f"{site.base}/downloads?token={site.token}")
    context.new_cdp_session(opened).send("Network.clearBrowserCache")
    begun = time.perf_counter()
    opened.goto(site.base + path, wait_until="commit")
    while not opened.evaluate(ready):
        time.sleep(0.02)
    seconds = time.perf_counter() - begun
    painted = opened.evaluate(PAINT)
    context.close()
    return painted / 1000, seconds


def update(run: Written, site: Served) -> dict[str, int]:
    """Let one variant make a step; return the bytes that each kind of page is told."""
    identity = f"{7:016x}"
    found: dict[str, int] = {}
    run.journal.variants[identity].best = 0.5
    with site.client() as client:
        for name, query in (("overview", ""), ("stage", "stage=train&")):
            home = client.get("/" if not query else "/stage/train").text
            known = re.search(r'data-cursor="([^"]*)"', home)
            assert known is not None
            with client.stream("GET", f"/api/live?{query}since={known[1]}") as answer:
                told = events(answer)
                next(told)
                run.journal.change(
                    identity, step=POINTS + 1 + len(found), metric=0.4, best=0.6 + len(found) / 100
                )
                run.journal.write()
                _, news, _ = next(told)
                found[name] = len(json.dumps(news, separators=(",", ":")))
    return found


def memory(run: Written, site: Served) -> tuple[dict[str, float], int]:
    """Search and follow the log; return the seconds of each, and the most memory of the site."""
    took = {}
    with watched(site.process.pid) as most, site.client() as client:
        begun = time.perf_counter()
        place = client.get("/api/log").json()["end"]
        took["the last lines"] = time.perf_counter() - begun
        begun = time.perf_counter()
        answer = client.get("/api/log", params={"search": "needle"}).json()
        while answer["more"]:
            answer = client.get(
                "/api/log", params={"search": "needle", "before": answer["start"]}
            ).json()
        assert len(answer["lines"]) == 1
        took["a search of all of it"] = time.perf_counter() - begun
        with client.stream("GET", f"/api/log/live?after={place}") as stream:
            told = events(stream)
            begun = time.perf_counter()
            run.line(f"{7:016x}", "what is new")
            assert next(told)[1]["lines"][-1]["text"] == "what is new"
            took["a new line is shown"] = time.perf_counter() - begun
            for _ in range(20_000):
                run.line(f"{7:016x}", "much at once")
            next(told)
    return took, most[0]


def tensorboard(folder: Path) -> float:
    """Return the seconds until TensorBoard knows all runs and has the curve of each."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--port",
        str(port),
    ]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}/data/plugin/scalars/tags"
    try:
        while True:
            with contextlib.suppress(OSError), urlopen(Request(address), timeout=60) as answer:
                if len(json.load(answer)) >= VARIANTS:
                    return time.perf_counter() - begun
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure, and print."""
    if CHROMIUM is None:
        raise SystemExit("this needs chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    print(common.machine())
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        folder = Path(place) / "output__large"
        begun = time.perf_counter()
        run = write(folder)
        print(
            f"written in {time.perf_counter() - begun:.0f} s: {VARIANTS} variants, {POINTS} points each\n"
        )
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        firsts = []
        pages: dict[str, list[tuple[float, float]]] = {"overview": [], "stage": []}
        for _ in range(REPEATS):
            with Served(folder, "--port", free_port()) as site, site.client() as client:
                begun = time.perf_counter()
                client.get("/api/run")
                firsts.append(time.perf_counter() - begun)
                ready = "document.querySelectorAll('#graph a.node').length > 0"
                pages["overview"].append(page(browser, site, "/", ready))
                pages["stage"].append(page(browser, site, "/stage/train", f"({DRAWN})()"))
        print(f"a new site reads the run in {common.spread(firsts, digits=2)} s\n")
        rows = [
            [
                name,
                common.spread([one[0] for one in found], digits=2),
                common.spread([one[1] for one in found], digits=2),
            ]
            for name, found in pages.items()
        ]
        common.table(["page, seconds", "first paint", "all drawn"], rows)
        drawn = statistics.median(one[1] for one in pages["stage"])
        whole = tensorboard(folder)
        print(
            f"\nTensorBoard has read the run after {whole:.1f} s, {whole / drawn:.0f} times as long as the stage takes\n"
        )
        with Served(folder, "--port", free_port()) as site:
            told = update(run, site)
            for name, size in told.items():
                print(
                    f"one step of one variant, told to the {name}: {size} bytes, target {MOST_UPDATE}: {'met' if size <= MOST_UPDATE else 'MISSED'}"
                )
            write_log(folder / "run.log")
            took, most = memory(run, site)
        print()
        common.table(
            ["a log of 1 GB", "seconds"],
            [[name, f"{seconds:.2f}"] for name, seconds in took.items()],
        )
        met = "met" if most <= MOST_MEMORY else "MISSED"
        print(
            f"\nthe site needs at most {most / (1 << 20):.0f} MB, target {MOST_MEMORY >> 20} MB: {met}"
        )
        browser.close()
        run.close()


if __name__ == "__main__":
    main()
