"""TensorBoard is reached through the site only: its token, its ``Host``, its user."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.experiment.lab import environment, until
from tests.report.served import Served, child, free_port, token_file
from tests.report.written import Written

pytestmark = pytest.mark.integration

APP = "/tensorboard/app"
NOBODY = 65534


@pytest.fixture
def run(tmp_path: Path) -> Written:
    return Written(tmp_path / "output__trial").walked(2)


@pytest.fixture
def site(run: Written) -> Iterator[Served]:
    with Served(run.folder.root, "--port", free_port()) as site:
        yield site


def listening(process: psutil.Process) -> set[int]:
    """Return the ports of this machine at which a process or one below it listens."""
    return {
        one.laddr.port
        for member in [process, *process.children(recursive=True)]
        for one in member.net_connections()
        if one.status == psutil.CONN_LISTEN
    }


def runs(client: httpx.Client) -> list[str]:
    """Wait until TensorBoard has read the run, which takes its data server where it has one."""
    names: list[str] = until(lambda: client.get(f"{APP}/data/runs").json(), "it has read the run")
    return names


def socket_of(site: Served) -> Path:
    command = child("flambe.report.tensorboard", site.process.pid).cmdline()
    return Path(command[command.index("--socket") + 1])


def test_tensorboard_listens_at_no_port(site: Served) -> None:
    """Its own port, and that of its data server, answered anybody, with any Host."""
    with site.client() as client:
        assert len(runs(client)) == 2
        assert child("flambe.report.tensorboard", site.process.pid)
        assert listening(psutil.Process(site.process.pid)) == {site.port}


def test_only_its_user_may_enter_the_folder_of_its_socket(site: Served) -> None:
    with site.client() as client:
        runs(client)
    folder = socket_of(site).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.geteuid()


@pytest.mark.root
def test_another_user_of_the_machine_does_not_reach_it(site: Served) -> None:
    with site.client() as client:
        runs(client)
    # Whoever may not look at a socket may not connect to it either.
    done = subprocess.run(
        ["ls", "-l", str(socket_of(site))],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Permission denied" in done.stderr


def test_its_folder_is_removed_however_the_site_ends(run: Written) -> None:
    for end in (Served.close, Served.kill):
        with Served(run.folder.root, "--port", free_port()) as site:
            with site.client() as client:
                runs(client)
            path = socket_of(site)
            process = child("flambe.report.tensorboard", site.process.pid)
            family = [process, *process.children(recursive=True)]
            assert path.exists()
            end(site)
        until(lambda: not path.parent.exists(), "the folder is gone")  # noqa: B023
        psutil.wait_procs(family, timeout=10)
        assert not [one for one in family if one.is_running() and one.status() != "zombie"]


def test_a_temporary_folder_of_a_long_name_is_no_obstacle(run: Written, tmp_path: Path) -> None:
    """Paths of Unix sockets have at most 107 bytes."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    environment = {**os.environ, "TMPDIR": str(long)}
    code = (
        "import flambe.report.tensorboard as t; from pathlib import Path;"
        "b = t.TensorBoard(Path('.')); print(b.socket)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    path = Path(done.stdout.strip())
    assert len(str(path)) < 104
    assert not path.parent.exists()


def test_nothing_is_written_where_other_users_put_links(run: Written, tmp_path: Path) -> None:
    """TensorBoard notes each process in /tmp/.tensorboard-info, a folder of everybody."""
    spare = tmp_path / "tmp"
    spare.mkdir()
    (spare / ".tensorboard-info").mkdir()
    os.environ["TMPDIR"] = str(spare)
    try:
        with Served(run.folder.root, "--port", free_port()) as site, site.client() as client:
            runs(client)
            assert list((spare / ".tensorboard-info").iterdir()) == []
    finally:
        del os.environ["TMPDIR"]


# -- the port of TensorBoard --------------------------------------------------------------------


def test_the_port_of_tensorboard_asks_for_the_token_and_the_host(
    run: Written, tmp_path: Path
) -> None:
    port = free_port()
    options = ["--port", free_port(), "--tensorboard-port", port]
    with (
        Served(run.folder.root, *options, "--token-file", token_file(tmp_path)) as site,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        for path in ("/", APP, f"{APP}/", f"{APP}/data/runs", "/data/runs"):
            assert client.get(path).status_code == 401, path
            token = {"authorization": f"Bearer {site.token}"}
            for name in ("evil.com", f"evil.com:{port}", "127.0.0.1.evil.com"):
                answer = client.get(path, headers={**token, "host": name})
                assert answer.status_code == 403, path
        page = client.get("/", params={"token": site.token}, follow_redirects=True)
        assert page.url.path == f"{APP}/"
        assert "<title>TensorBoard</title>" in page.text
        assert len(runs(client)) == 2
        # It runs at once, and again when it dies.
        child("flambe.report.tensorboard", site.process.pid).kill()
        time.sleep(0.1)
        assert len(runs(client)) == 2


def test_a_taken_port_of_tensorboard_is_said(run: Written) -> None:
    with Served(run.folder.root, "--port", free_port()) as site:
        command = [*site.command[:-2], "--port", str(free_port())]
        done = subprocess.run(
            [*command, "--tensorboard-port", str(site.port)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "choose another --tensorboard-port" in done.stderr


# -- what it reads ------------------------------------------------------------------------------

WITHOUT_NAMESPACES = """
import flambe.report.tensorboard_process as process
process._enter_network_of_its_own = lambda: False
process.main()
"""


def test_where_the_system_gives_it_no_network_of_its_own_it_needs_no_port(
    run: Written, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_NAMESPACES, "--parent", str(os.getpid()),
         "--socket", str(folder / "socket"), "--logdir", str(run.folder.root), "--path_prefix", APP],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until((folder / "socket").exists, "it listens")
        transport = httpx.HTTPTransport(uds=str(folder / "socket"))
        with httpx.Client(base_url="http://tensorboard", transport=transport, timeout=60) as client:
            assert len(runs(client)) == 2
        assert not listening(psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


def test_files_that_a_run_names_are_not_sent(run: Written, site: Served) -> None:
    """The projector sends any file that projector_config.pbtxt names."""
    config = (
        'embeddings { tensor_name: "x" metadata_path: "/etc/passwd" tensor_path: "/etc/passwd" }'
    )
    folder = run.folder.variant("train", "rate=0") / "tensorboard"
    (folder / "projector_config.pbtxt").write_text(config)
    with site.client() as client:
        runs(client)
        query = {"run": "train/rate=0/tensorboard", "name": "x"}
        for name in ("metadata", "tensor", "runs", "info"):
            answer = client.get(f"{APP}/data/plugin/projector/{name}", params=query)
            assert answer.status_code == 404
            assert "root:" not in answer.text


def test_what_is_sent_to_it_has_a_bound(site: Served) -> None:
    with site.client() as client:
        runs(client)
        assert client.post(f"{APP}/data/runs", content=b"x" * (8 << 20)).status_code == 413
        assert client.get(f"{APP}/data/runs").status_code == 200
