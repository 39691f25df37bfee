"""Who is let in, what is shown to them, and what no name of a file leads to."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from flambe.experiment.variants.expansion import Variant
from flambe.progress import StageState
from flambe.report import create_app
from tests.report.served import asked, serving
from tests.report.written import Written

EVIL = "<script>alert('x')</script>"
TOKEN = "a-token-of-this-test"
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE")
ID = "00" + "ab" * 7


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("runs")
    run = Written(folder / "output__trial").walked(2)
    run.end()
    (folder / "outside.txt").write_text("not yours")
    return run


@pytest.fixture(scope="module")
def app(run: Written) -> Starlette:
    return create_app(run.folder.root, token=TOKEN)


@contextlib.contextmanager
def open_site(app: Any, token: str = "") -> Iterator[httpx.Client]:
    """Serve an application, and give a client that says it has the token, or nothing."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with (
        serving(app) as base,
        httpx.Client(base_url=base, headers=headers, trust_env=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def base(app: Starlette) -> Iterator[str]:
    with serving(app) as base:
        yield base


@pytest.fixture
def stranger(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, trust_env=False) as client:
        yield client


@pytest.fixture
def client(stranger: httpx.Client) -> httpx.Client:
    stranger.headers["authorization"] = f"Bearer {TOKEN}"
    return stranger


def paths(routes: list[BaseRoute]) -> Iterator[str]:
    """Yield an address for every route, with something in the place of its names."""
    for route in routes:
        if isinstance(route, Mount):
            yield f"{route.path}/site.css"
            yield f"{route.path}/js/live.js"
        else:
            assert isinstance(route, Route), f"what is {route}?"
            path = route.path.replace("{stage}", "train").replace("{id}", ID)
            yield path.replace("{path:path}", "experiment.yaml")


# -- the token ----------------------------------------------------------------------------------


def test_no_route_answers_without_the_token(app: Starlette, stranger: httpx.Client) -> None:
    addresses = [*paths(app.routes), "/nowhere", "/api/nowhere", "/download/", "//", "/static/../x"]
    assert len(addresses) > 20
    wrong: list[dict[str, Any]] = [
        {},
        {"headers": {"authorization": "Bearer no"}},
        {"headers": {"authorization": f"Basic {TOKEN}"}},
        {"headers": {"cookie": "flambe_000000000000=no; other=1"}},
        {"params": {"token": "no"}},
        {"params": {"token": ""}},
    ]
    for address in addresses:
        for method in METHODS:
            for more in wrong if method in ("GET", "POST") else wrong[:1]:
                answer = stranger.request(method, address, **more)
                assert answer.status_code in (401, 403), f"{method} {address} {more}"
                assert "trial" not in answer.text
    # The token in the address of anything but a GET lets nobody in.
    assert stranger.post("/?token=" + TOKEN).status_code == 401


def test_every_route_answers_with_the_token(app: Starlette, client: httpx.Client) -> None:
    for address in paths(app.routes):
        if "live" in address.split("/")[-1] or "tensorboard/app" in address or "font" in address:
            continue  # what goes on and on, and TensorBoard, are tested as a process
        assert client.get(address).status_code == (404 if "experiment.yaml" in address else 200), (
            address
        )


def test_the_token_becomes_a_cookie_that_scripts_cannot_read(stranger: httpx.Client) -> None:
    answer = stranger.get("/console", params={"token": TOKEN, "stage": "train"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console?stage=train")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"; HttpOnly; SameSite=Lax; Path=/$", cookie)
    page = stranger.get(answer.headers["location"])
    assert page.status_code == 200
    assert TOKEN not in page.text


def test_two_sites_on_one_host_keep_their_cookies(run: Written) -> None:
    cookies = set()
    for _ in range(2):
        app = create_app(run.folder.root)
        assert len(app.state.token) > 40
        with open_site(app) as client:
            answer = client.get("/", params={"token": app.state.token})
            cookies.add(answer.headers["set-cookie"].split("=")[0])
    assert len(cookies) == 2


def test_the_address_after_the_token_stays_on_this_site(stranger: httpx.Client) -> None:
    port = stranger.base_url.port
    for path in ("//evil.example/x", "///evil.example", "/\\evil.example", "/%5cevil.example"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"{path}?token={TOKEN}")
        answer = connection.getresponse()
        assert answer.status == 303
        assert re.match(r"/[^/\\]", f"{answer.getheader('location')}x"), path
        connection.close()


# -- where requests come from -------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[",
        "x@localhost.evil",
    ],
)
def test_other_names_of_this_machine_are_refused(client: httpx.Client, host: str) -> None:
    """A page elsewhere may let its own name lead here (DNS rebinding)."""
    assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:49558", "10.1.2.3:80"])
def test_its_own_names_are_known(client: httpx.Client, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200


def test_a_name_that_was_given_is_known(run: Written) -> None:
    app = create_app(run.folder.root, token=TOKEN, hosts=["Runs.Example"])
    with open_site(app, TOKEN) as client:
        assert client.get("/", headers={"host": "runs.example:80"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_what_other_sites_ask_for_is_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    for path in ("/api/run", "/static/site.css", "/tensorboard/app/data/runs"):
        assert client.get(path, headers=headers).status_code == 403
    assert client.post("/tensorboard/app/data/runs", headers=headers).status_code == 403


def test_links_from_elsewhere_and_own_scripts_are_let_in(client: httpx.Client) -> None:
    follow = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    base = str(client.base_url).rstrip("/")
    own = {"origin": base, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert client.get("/", headers=follow).status_code == 200
    assert client.get("/api/run", headers=own).status_code == 200


# -- what is sent -------------------------------------------------------------------------------


def test_browsers_are_told_to_be_careful(app: Starlette, client: httpx.Client) -> None:
    for address in [
        *paths(
            [
                r
                for r in app.routes
                if "live" not in getattr(r, "path", "")
                and "tensorboard/app" not in getattr(r, "path", "")
                and "font" not in getattr(r, "path", "")
            ]
        ),
        "/nowhere",
    ]:
        headers = client.get(address).headers
        assert headers["x-content-type-options"] == "nosniff", address
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert headers["referrer-policy"] == "no-referrer"


def test_what_a_run_says_is_text(tmp_path: Path) -> None:
    """Names and values of hyper-parameters, folders, lines, errors."""
    run = Written(tmp_path, [StageState("train", EVIL, total=1)])
    choices: dict[str, Any] = {EVIL: EVIL, "list": [EVIL], "</script>": 1}
    run.add(ID, EVIL.replace("/", "_"), **choices)
    run.line(ID, EVIL)
    run.step(ID, 1, 0.5)
    run.record(ID, "scalar", EVIL, 0.5)
    run.done(ID, error=EVIL, traceback=EVIL, host=EVIL)
    run.journal.run.hosts[EVIL] = {"user": EVIL}
    run.journal.run.command = [EVIL]
    run.end(error=EVIL)
    with open_site(create_app(tmp_path, token=TOKEN), TOKEN) as client:
        pages_are_harmless(client)


def pages_are_harmless(client: httpx.Client) -> None:
    for path in (
        "/",
        "/stage/train",
        f"/variant/{ID}",
        "/console",
        f"/console?variant={ID}",
        "/downloads",
        "/tensorboard?stage=train",
        f"/tensorboard?variant={ID}",
        "/tensorboard?stage=%3Cscript%3E",
        "/console?search=%22%3E%3Cscript%3E",
        "/stage/%3Cscript%3E",
        "/variant/%3Cscript%3E",
        "/%3Cscript%3E",
    ):
        page = client.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        scripts = re.findall(r"<script[^>]*>", page.text)
        assert all(" src=" in tag or 'type="application/json"' in tag for tag in scripts), path
        assert page.text.count("</script>") == len(scripts), path
        assert "alert('x')" not in page.text, path
    for path in ("/api/run", "/api/log", f"/api/variant/{ID}/figures"):
        assert client.get(path).headers["content-type"] == "application/json"
    refused = client.get("/", headers={"host": f"{EVIL}.example"})
    assert "<script" not in refused.text


def test_nothing_that_is_pickled_is_read() -> None:
    for path in (Path(__file__).parents[2] / "src/flambe/report").rglob("*.py"):
        assert not re.search(
            r"\b(pickle|cloudpickle|joblib|torch|marshal|shelve)\b", path.read_text()
        ), path


# -- what names of files lead to ----------------------------------------------------------------

OUT = (
    "../outside.txt",
    "train/../../outside.txt",
    "%2e%2e%2foutside.txt",
    "%2e%2e/outside.txt",
    "..%2foutside.txt",
    "%252e%252e%252foutside.txt",
    "..%5coutside.txt",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "train/%2e%2e/%2e%2e/outside.txt",
    "link.txt",
    "linked/outside.txt",
    "train/..%00/outside.txt",
    "state.json%00.txt",
    "%00",
    "",
    ".",
    "train",
    "a" * 300,
    "/".join(["a"] * 3000),
    "loop/loop/loop",
)


def test_no_name_leads_out_of_the_run(run: Written, client: httpx.Client) -> None:
    base = str(client.base_url)
    root = run.folder.root
    (root / "link.txt").symlink_to(root.parent / "outside.txt")
    (root / "linked").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    for name in OUT:
        for folder in ("files", "static"):
            status, text = asked(base, f"/{folder}/{name}", TOKEN)
            assert status in (307, 404, 400), f"{name}: {text!r}"
            assert b"not yours" not in text, name
            assert b"root:" not in text, name


def test_files_within_are_sent_to_be_kept(run: Written, client: httpx.Client) -> None:
    (run.folder.root / "page.html").write_text(EVIL)
    (run.folder.root / "alias").symlink_to(run.folder.root / "state.json")
    answer = client.get("/files/page.html")
    assert answer.text == EVIL
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="page.html"'
    assert client.get("/files/alias").json()["name"] == "trial"  # it stays within


def test_folders_that_a_journal_names_stay_within(tmp_path: Path) -> None:
    """A run that came from elsewhere is shown, and leads nowhere."""
    run = Written(tmp_path / "output__trial").walked(1)
    (tmp_path / "variant.log").write_text("2026-01-01 00:00:00 INFO not yours\n")
    (tmp_path / "config.yaml").write_text("not yours")
    (tmp_path / "metrics.jsonl").write_text('{"tag": "not yours", "step": 1, "value": 1}\n')
    (run.folder.root / "train" / "linked").symlink_to(tmp_path)
    (run.folder.root / "elsewhere").symlink_to(tmp_path)
    run.journal.run.stages.append(StageState("elsewhere"))
    names = ["../..", "/etc", "linked", "..", "x\0y", ".", ""]
    for number, name in enumerate(names):
        run.journal.add(Variant(f"id{number}", "train", name, None), attempts=1)
    run.end()
    with open_site(create_app(run.folder.root, token=TOKEN), TOKEN) as client:
        common = [
            "/download/stage/train",
            "/download/stage/elsewhere",
            "/download/run",
            "/stage/train",
        ]
        common += [
            "/downloads",
            "/api/stage/train/curves",
            "/api/stage/train/curves?tag=not%20yours",
        ]
        for number in range(len(names)):
            one = f"id{number}"
            common += [f"/variant/{one}", f"/api/log?variant={one}", f"/api/variant/{one}/figures"]
            common += [f"/download/variant/{one}"]
        for path in common:
            answer = client.get(path)
            assert answer.status_code in (200, 404), path
            assert b"yours" not in answer.content, path
            assert b"root:" not in answer.content, path


def test_odd_numbers_in_addresses_are_no_errors(client: httpx.Client) -> None:
    for value in ("9" * 30, "-1", "1e3", "²", "0", "x"):
        assert client.get("/api/log", params={"before": value}).status_code == 200


# -- mounted ------------------------------------------------------------------------------------


def test_the_site_can_be_mounted_in_another_one(run: Written) -> None:
    outer = Starlette(routes=[Mount("/runs/one", create_app(run.folder.root, token=TOKEN))])
    with open_site(outer) as client:
        everything_is_below(client)


def everything_is_below(client: httpx.Client) -> None:
    assert client.get("/runs/one/").status_code == 401
    entered = client.get("/runs/one/", params={"token": TOKEN})
    assert entered.headers["location"] == "/runs/one/"
    pages = [
        "/runs/one/",
        "/runs/one/stage/train",
        f"/runs/one/variant/{ID}",
        "/runs/one/console",
        "/runs/one/downloads",
        "/runs/one/tensorboard",
    ]
    for page in pages:
        text = client.get(page).text
        assert 'data-base="/runs/one"' in text
        found = re.findall(r'(?:href|src)="(/[^"#?]*)', text)
        assert len(found) > 8
        assert all(address.startswith("/runs/one/") for address in found)
        for address in set(found):
            if "tensorboard/app" not in address:
                assert client.get(address).status_code == 200 or "experiment.yaml" in address, (
                    address
                )
