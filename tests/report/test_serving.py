"""The site as a process: its address, its port, its certificate, its news, its ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from flambe.progress import Status
from flambe.report import create_app
from tests.experiment.lab import Lab, environment, flambe, until
from tests.report.served import Served, child, events, free_port, serving, token_file
from tests.report.written import Written

pytestmark = pytest.mark.integration

ID = "00" + "ab" * 7


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return Written(tmp_path / "output__trial").walked(2)


# -- addresses ----------------------------------------------------------------------------------


def test_it_says_where_it_is_and_is_found_there(run: Written) -> None:
    with Served(run.folder.root.parent, "--port", free_port()) as site:  # the only run in there
        assert site.said.startswith("Report Site of trial: http://127.0.0.1:")
        assert len(site.token) > 40
        with httpx.Client(trust_env=False, follow_redirects=True) as client:
            assert "trial" in client.get(site.url).text
        (listening,) = {
            c.laddr.ip
            for c in psutil.Process(site.process.pid).net_connections()
            if c.status == "LISTEN"
        }
        assert listening == "127.0.0.1"
        assert site.close() == ""
        assert site.process.returncode == 0


def test_a_taken_port_is_said_and_without_one_another_is_chosen(run: Written) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = flambe("site", run.folder.root, "--port", str(port))
        assert done.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}: address already in use" in done.stderr
        assert "another --port" in done.stderr
    with Served(run.folder.root) as one, Served(run.folder.root) as two:
        assert one.port != two.port
        for site in (one, two):
            with site.client() as client:
                assert client.get("/api/run").json()["name"] == "trial"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "203.0.113.7"], "choose another --host"),
        (["--host", "no such host"], "choose another --host"),
        (["--port", "99999999"], "choose another --port"),
        (["--certificate", "x.pem"], "must be given together"),
        (["--certificate", "x.pem", "--key", "x.pem"], "the certificate x.pem cannot be used"),
        (["--token-file", "nothing"], "the token cannot be read: nothing: No such file"),
        (["--token-file", "short"], "does not hold a token"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_served(
    run: Written, tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "short").write_text("abc")
    done = flambe("site", run.folder.root, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "http" not in done.stdout


def test_folders_without_a_run_or_with_several_are_told(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "no", "no such folder"), (tmp_path, "no run in")):
        done = flambe("site", folder)
        assert done.returncode == 2
        assert said in done.stderr
    for name in ("one", "two"):
        Written(tmp_path / f"output__{name}").end()
    done = flambe("site", tmp_path)
    assert done.returncode == 2
    assert f"flambe site {tmp_path / 'output__one'}   finished, 20" in done.stderr


def test_beyond_this_machine_it_needs_the_token_and_says_what_it_shows(run: Written) -> None:
    options = ["--host", "0.0.0.0", "--port", free_port(), "--name", "Gpu.lab"]
    with Served(run.folder.root, *options) as site:
        assert site.base == f"http://{socket.gethostname()}:{site.port}"
        with httpx.Client(base_url=f"http://127.0.0.1:{site.port}", trust_env=False) as client:
            assert client.get("/").status_code == 401
            assert client.get("/", params={"token": site.token}).status_code == 303
            for name, code in (("gpu.lab", 200), ("other.lab", 403)):
                assert client.get("/", headers={"host": name}).status_code == code
        told = site.close()
    assert "can read the logs, the configuration and the checkpoints" in told
    assert "not encrypted: see --certificate and --key" in told


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_with_a_certificate_it_speaks_tls(run: Written, tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
    more = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names, *more], cwd=tmp_path, check=True, capture_output=True)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    options = [
        "--certificate",
        certificate,
        "--key",
        key,
        "--host",
        "localhost",
        "--port",
        free_port(),
    ]
    with Served(run.folder.root, *options) as site:
        assert site.url.startswith("https://localhost:")
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(verify=trusted, trust_env=False, base_url=site.base) as client:
            assert client.get("/").status_code == 401
            answer = client.get("/", params={"token": site.token})
            assert "; Secure" in answer.headers["set-cookie"]
            assert client.get("/").status_code == 200
        with httpx.Client(trust_env=False) as plain, pytest.raises(httpx.HTTPError):
            plain.get(f"http://localhost:{site.port}/")
        assert "not encrypted" not in site.close()


def test_answers_come_at_once(run: Written) -> None:
    """Not held back until the browser confirms their heads (TCP_NODELAY)."""
    with Served(run.folder.root, "--port", free_port()) as site, site.client() as client:
        client.get("/static/site.css")
        took = []
        for _ in range(30):
            begun = time.perf_counter()
            client.get("/static/site.css")
            took.append(time.perf_counter() - begun)
        assert sorted(took)[5] < 0.035  # 0.04 where they are held back


# -- news ---------------------------------------------------------------------------------------


@pytest.fixture
def site(run: Written) -> Iterator[Served]:
    with Served(run.folder.root, "--port", free_port()) as site:
        yield site


def cursor(client: httpx.Client, path: str) -> str:
    return client.get(path).text.partition('data-cursor="')[2].partition('"')[0]


def test_news_come_as_the_run_goes_on(run: Written, site: Served) -> None:
    run.add("f" * 16, rate=9)
    with site.client() as client:
        known = cursor(client, "/stage/train")
        live = f"/api/live?stage=train&since={known}"
        with client.stream("GET", live) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            told = events(answer)
            next(told)  # the stage as it is
            run.step("f" * 16, 1, 0.25)
            kind, news, place = next(told)
            assert kind == "news"
            (row,) = news["rows"]
            assert (row["id"], row["points"], row["best"]) == ("f" * 16, [[1, 0.25]], 0.25)
        # Who lost the connection is told what came meanwhile.
        run.step("f" * 16, 2, 0.5)
        with client.stream("GET", live, headers={"last-event-id": place}) as answer:
            news = next(news for _, news, _ in events(answer) if "rows" in news)
            assert news["rows"][0]["points"] == [[2, 0.5]]
        # Who knows another run begins anew.
        for unknown in ("", "another-3", "x-" + "9" * 5000):
            with client.stream("GET", live, headers={"last-event-id": unknown or "-"}) as answer:
                assert next(events(answer))[0] == "anew"


def test_the_log_is_followed(run: Written, site: Served) -> None:
    with site.client() as client:
        place = client.get("/api/log").json()["end"]
        with client.stream("GET", f"/api/log/live?after={place}&level=ERROR") as answer:
            told = events(answer)
            run.line(ID, "nothing of interest")
            run.line(ID, "a misfortune", "ERROR")
            kind, news, _ = next(told)
            assert kind == "lines"
            (line,) = news["lines"]
            assert (line["text"], line["source"]) == ("a misfortune", "train rate=0,kind=a")
        assert client.get("/api/log", params={"variant": "no"}).status_code == 404


def test_nothing_is_read_when_nobody_watches(run: Written, site: Served) -> None:
    with site.client() as client:
        client.get("/")
        with client.stream("GET", "/api/live?since=x") as answer:
            list(events(answer))
    process = psutil.Process(site.process.pid)
    time.sleep(1.0)
    before = sum(process.cpu_times()[:2])
    time.sleep(1.5)
    assert sum(process.cpu_times()[:2]) - before < 0.1


# -- ends ---------------------------------------------------------------------------------------


@pytest.mark.faults
def test_a_killed_site_that_comes_back_tells_pages_to_begin_anew(
    run: Written, tmp_path: Path
) -> None:
    options = ["--port", free_port(), "--token-file", token_file(tmp_path)]
    site = Served(run.folder.root, *options)
    with site.client() as client:
        known = cursor(client, "/")
        assert client.get("/").status_code == 200
    site.kill()
    with Served(run.folder.root, *options) as again:
        assert again.url == site.url
        with again.client() as client, client.stream("GET", f"/api/live?since={known}") as answer:
            assert next(events(answer))[0] == "anew"


@pytest.mark.faults
def test_a_folder_that_is_removed_and_comes_back_is_shown(run: Written, site: Served) -> None:
    root = run.folder.root
    with site.client() as client:
        assert client.get("/api/run").json()["status"] == "running"
        with client.stream("GET", f"/api/live?since={cursor(client, '/')}") as answer:
            told = events(answer)
            next(told)
            shutil.rmtree(root)
            assert until(lambda: next(told)[0] == "anew", "the page is told")
        until(lambda: client.get("/api/run").json()["status"] == "empty", "it has looked again")
        for address, status in (
            ("/", 200), ("/stage/train", 404), (f"/variant/{ID}", 404), ("/console", 200),
            ("/downloads", 200), ("/tensorboard", 200), ("/api/log", 200), ("/download/run", 200),
            ("/api/stage/train/curves", 404), ("/files/state.json", 404),
        ):  # fmt: skip
            assert client.get(address).status_code == status, address
        Written(root, name="trial").walked(3).end(Status.FAILED, "no luck")
        until(lambda: client.get("/api/run").json()["status"] == "failed", "the new run is shown")
        assert client.get("/stage/train").status_code == 200


def test_tensorboard_is_passed_on_where_the_site_is_mounted(run: Written) -> None:
    app = create_app(run.folder.root)
    outer = Starlette(routes=[Mount("/runs/one", app)])
    headers = {"authorization": f"Bearer {app.state.token}"}
    with (
        serving(outer) as base,
        httpx.Client(headers=headers, trust_env=False, timeout=90) as client,
    ):
        start = f"{base}/runs/one/tensorboard/app"
        page = client.get(f"{start}/")
        assert page.status_code == 200
        assert "<title>TensorBoard</title>" in page.text
        assert page.headers["x-content-type-options"] == "nosniff"
        runs = until(lambda: client.get(f"{start}/data/runs").json(), "it has read the run")
        assert runs == ["train/rate=0/tensorboard", "train/rate=1/tensorboard"]
        # What is asked is passed on as it is.
        query = {"tag": "metric", "run": "train/rate=1/tensorboard"}
        told = client.get(f"{start}/data/plugin/scalars/scalars", params=query).json()
        assert [step for _, step, _ in told] == [1, 2, 3, 4]
        assert client.get(f"{base}/runs/one/font-roboto/no.woff2").status_code == 404
        process = child("flambe.report.tensorboard")
        with httpx.Client(trust_env=False) as stranger:
            assert stranger.get(f"{start}/").status_code == 401
        process.terminate()  # a site that is mounted is not told of its end
        process.wait(20)


@pytest.mark.faults
def test_garbage_in_every_file_costs_no_page(run: Written, site: Served) -> None:
    with site.client() as client:
        client.get("/")
        for path in run.folder.root.rglob("*"):
            if path.is_file():
                with open(path, "r+b") as stream:
                    stream.seek(path.stat().st_size // 2)
                    stream.write(b"\x00\xff{[\n\n" + os.urandom(40))
        time.sleep(0.3)
        for page in ("/", "/stage/train", f"/variant/{ID}", "/console", "/downloads", "/api/run"):
            assert client.get(page).status_code == 200, page
        assert client.get("/api/run").json()["name"] == "trial"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


SLOW = """
train: !pieces.Walk
  rate: 1
  steps: 30
  delay: 0.2
  record: RECORD
"""
# What "flambe CONFIG --site" does, without Ray.
WITH_SITE = """
import sys
from pathlib import Path
from flambe.cli.display import display
from flambe.cli.site import SiteDisplay
from flambe.experiment.executors.inline import InlineExecutor
from tests.experiment.lab import Lab
shown = SiteDisplay(display())
try:
    Lab(Path(sys.argv[1])).experiment().run(observer=shown, executor=InlineExecutor)
finally:
    shown.close()
"""


@pytest.mark.faults
def test_a_run_with_its_site_survives_the_death_of_it(lab: Lab) -> None:
    lab.write(SLOW)
    root = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, "-u", "-c", WITH_SITE, str(lab.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "PYTHONPATH": f"{root}{os.pathsep}{environment()['PYTHONPATH']}"},
        cwd=root,
    )
    assert run.stdout is not None
    said = [run.stdout.readline()]
    while "Report Site of" not in said[-1]:
        assert said[-1], "".join(said)
        said.append(run.stdout.readline())
    url = said[-1].split()[-1]
    with httpx.Client(trust_env=False, follow_redirects=True) as client:
        assert client.get(url).status_code == 200
        base = url.partition("?")[0]
        until(lambda: client.get(f"{base}api/run").json()["status"] == "running", "it runs")
    site = child("site", run.pid)
    assert "token" not in " ".join(site.cmdline())
    site.send_signal(signal.SIGKILL)
    rest, _ = run.communicate(timeout=60)
    assert run.returncode == 0, rest
    assert lab.records()[-1] == "step 1 30"
    # The last lines say how to see it again.
    (told,) = [line for line in rest.splitlines() if "Report Site" in line]
    assert told.split()[-1] == str(lab.folder.root)
    assert "flambe site" in told


def test_the_site_ends_with_the_process_that_started_it(run: Written) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'flambe', 'site', sys.argv[1], '--parent', str(os.getpid())])\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder.root)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert parent.stdout is not None
    url = parent.stdout.readline().split()[-1]
    (only,) = psutil.Process(parent.pid).children()
    assert httpx.get(url, trust_env=False).status_code == 303
    parent.kill()
    parent.wait()
    until(lambda: not only.is_running() or only.status() == "zombie", "the site is gone")
    parent.stdout.close()
