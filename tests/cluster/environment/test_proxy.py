"""Hosts that reach an index only through an HTTP proxy, which asks for a password."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flambe.cluster.environment import proxy
from flambe.errors import CommandError, RemoteError
from flambe.logging import redact
from tests.cluster.conftest import ssh_cluster
from tests.cluster.connect import PASSWORD, USER, WRITTEN
from tests.cluster.connect import proxy as running_proxy
from tests.cluster.environment.test_environments import cut_off, index, make, proven
from tests.cluster.place import typed
from tests.experiment.lab import COMMAND
from tests.metal import Metal
from tests.metal.conftest import lent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.xdist_group("metal-proxy"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NAME = "index.test"  # which only the proxy knows
JOB = """
import os, urllib.request
from flambe.experiment.cluster_setup import _fetch
from flambe.runnable import ClusterRunnable

class Job(ClusterRunnable):
    def setup(self, cluster, extensions, force, **kwargs):
        place = f"{cluster.context.folder}/resources/page"
        self.page = _fetch(cluster, "page", "http://pages.test/page.txt", place)

    def run(self, force=False, **kwargs):
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            assert os.environ[name] == os.environ[name.upper()]
        print("directly:", os.environ["no_proxy"], flush=True)
        print("through:", os.environ["https_proxy"], flush=True)
        print("bytes:", len(urllib.request.urlopen(os.environ["PAGE"]).read()), flush=True)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve an index that no host reaches by itself."""
    with index(tmp_path_factory.mktemp("index"), "127.0.0.1", NAME) as found:
        yield found


def commands(certificate: Path) -> list[str]:
    return [
        f"cat > ca.pem <<'END'\n{certificate.read_text()}END",
        "pip config set global.cert $HOME/ca.pem",
    ]


@contextlib.contextmanager
def pages(folder: Path) -> Iterator[int]:
    """Serve a folder to this machine; yield the port."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Watch:
    """Looks at all command lines of hosts, over and over."""

    def __init__(self, metal: Metal) -> None:
        self.metal = metal
        self.seen: set[str] = set()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self.over.wait(0.05):
            for host in self.metal.hosts:
                self.seen.update(host.processes())

    def __enter__(self) -> set[str]:
        self.thread.start()
        return self.seen

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()


def clean(*texts: str) -> None:
    """See that the password is nowhere in these."""
    for text in texts:
        assert PASSWORD not in text
        assert WRITTEN not in text


def test_everything_goes_through_it_and_nobody_sees_the_password(served: tuple[str, Path]) -> None:
    url, certificate = served
    with (
        lent(2) as metal,
        cut_off(metal),
        running_proxy(metal.gateway, {NAME: ("127.0.0.1", urlsplit(url).port or 0)}) as through,
    ):
        download = f"pip download -q --no-deps -d got -i {url} packaging && ls got"
        options = {"proxy": through.url, "index_url": url}
        cluster = ssh_cluster(
            metal,
            setup_cmds=[*commands(certificate), download, "echo $https_proxy"],
            environment=options,
        )
        with Watch(metal) as seen:
            told = make(cluster)
        proven(cluster)
        # pip and uv used it; no host of the cluster was asked for through it.
        assert set(through.joined) == {NAME}
        assert through.refused == []
        for name in ("orchestrator", "factory_1"):
            assert any(host == name and text.startswith("packaging-") for host, text in told.lines)
            assert (name, f"http://***{through.url.rpartition('@')[2]}") in told.lines
        assert any("uv" in line and "pip" in line for line in seen)
        clean(*seen, *told.notes, *(text for _, text in told.lines), repr(cluster.environment))
        clean(cluster.local.setup_log.read_text(), cluster.local.record.read_text())
        for host in metal.hosts:
            place = f"/home/{host.user}/{proxy.path(cluster.context)}"
            assert host.run("stat", "-c", "%a %U", place).stdout == f"600 {host.user}\n"
        # A command that fails, and says it.
        with pytest.raises(RemoteError) as raised:
            make(ssh_cluster(metal, setup_cmds=["env >&2; false"], environment=options))
        assert "https_proxy=http://***" in str(raised.value.errors[0])  # type: ignore[attr-defined]
        clean(str(raised.value))
        assert isinstance(raised.value.errors[0], CommandError)  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_run_has_it_too(tmp_path: Path, served: tuple[str, Path]) -> None:
    """By the command, with an extension; and the command says nothing of the password either."""
    package = tmp_path / "proxy_job"
    (package / "proxy_job").mkdir(parents=True)
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "proxy-job"\nversion = "1.0"\n'
    )
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--no-build-isolation"]
    install += ["--offline", "--target", str(tmp_path / "site"), "--no-deps", str(package)]
    url, certificate = served
    with (
        lent(2) as metal,
        cut_off(metal),
        pages(tmp_path) as port,
        running_proxy(
            metal.gateway,
            {NAME: ("127.0.0.1", urlsplit(url).port or 0), "pages.test": ("127.0.0.1", port)},
        ) as through,
    ):
        (tmp_path / "page.txt").write_text("a resource of an experiment")
        page = f"import os; os.environ['PAGE'] = '{url}/packaging/index.html'\n"
        (package / "proxy_job" / "__init__.py").write_text(page + JOB)
        subprocess.run(install, check=True, capture_output=True)
        trust = "sudo sh -c 'cat ca.pem >> /etc/ssl/certs/ca-certificates.crt'"
        file = tmp_path / "cluster.yaml"
        more = {"proxy": through.url, "index_url": url}
        listed = [*commands(certificate), trust]
        file.write_text(metal.cluster_yaml(setup_cmds=listed, environment=more))
        (tmp_path / "job.yaml").write_text("proxy_job: ./proxy_job\n---\n!proxy_job.Job {}\n")
        env = {**os.environ, "FLAMBE_HOME": str(tmp_path / "home"), "COLUMNS": "100"}
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "job.yaml", "--cluster", str(file)],
            env={**env, "PYTHONPATH": str(tmp_path / "site")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        addresses = ",".join(host.address for host in metal.hosts)
        assert f"directly: localhost,127.0.0.1,::1,{addresses}\n" in done.stdout
        assert "through: http://***" in done.stdout
        assert "bytes: " in done.stdout
        clean(done.stdout, done.stderr)
        assert "pages.test" in through.joined
        for host in metal.hosts:
            sent = host.run(
                "cat", f"/home/{host.user}/.flambe/clusters/metal/resources/page/page.txt"
            )
            assert sent.stdout == "a resource of an experiment"
            log = f"cat /home/{host.user}/.flambe/hosts/*/runs/*/output.log || true"
            clean(host.run("sh", "-c", log).stdout, *host.processes())
        down = [sys.executable, "-c", COMMAND, "down", str(file)]
        subprocess.run(down, env=env, cwd=tmp_path, check=True, capture_output=True, timeout=120)
        for host in metal.hosts:
            assert "proxy" not in host.run("ls", f"/home/{host.user}/.flambe/clusters/metal").stdout


@pytest.mark.long
def test_the_proxy_of_pips_own_settings_counts_for_the_packages(served: tuple[str, Path]) -> None:
    url, certificate = served
    with (
        lent(1) as metal,
        cut_off(metal),
        running_proxy(metal.gateway, {NAME: ("127.0.0.1", urlsplit(url).port or 0)}) as through,
    ):
        more = [
            f"pip config set global.proxy {through.url}",
            f"pip config set global.index-url {url}",
        ]
        cluster = ssh_cluster(metal, setup_cmds=[*commands(certificate), *more])
        make(cluster)
        proven(cluster)
        assert set(through.joined) == {NAME}


def test_a_wrong_password_is_told_without_it(tmp_path: Path) -> None:
    with lent(1) as metal, cut_off(metal), running_proxy(metal.gateway, {}) as through:
        wrong = through.url.replace(WRITTEN, "canary-wrong")
        options = {"proxy": wrong, "index_url": f"https://{NAME}/simple"}
        begun = time.monotonic()
        with pytest.raises(RemoteError, match="installing the environment") as raised:
            make(ssh_cluster(metal, environment=options))
        assert time.monotonic() - begun < 120
        assert through.refused
        assert "canary-wrong" not in str(raised.value)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("ann:canary-9@proxy:3128", "is not the URL of an HTTP proxy"),
        ("socks5://ann:canary-9@proxy:3128", "is not the URL of an HTTP proxy"),
        ("http://ann:canary-9@proxy:port", "has no port from 1 to 65535"),
        ("3128", "is not a URL"),
    ],
)
def test_a_proxy_that_is_none_is_told_without_its_password(
    tmp_path: Path, written: str, told: str
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        f"!SSHCluster {{name: a, orchestrator_ip: h, environment: {{proxy: {written}}}}}\n"
    )
    done = typed(tmp_path, file)
    assert done.returncode == 2
    assert f"environment: proxy {told}" in done.stderr
    assert "canary-9" not in done.stdout + done.stderr


def test_what_it_does_not_lead_to(tmp_path: Path) -> None:
    """The hosts of the cluster, by the addresses of both sides, and the loopback."""
    from flambe.cluster import SSHCluster
    from flambe.cluster.cluster_host import ClusterHost

    url = f"http://{USER}:pa%24s@proxy:3128"
    both = ["203.0.113.5:2222", "10.0.0.5"]
    cluster = SSHCluster("c", both, ["10.0.0.6"], environment={"proxy": url})
    cluster.hosts = tuple(
        [ClusterHost(m, cluster.local, ".flambe") for m in cluster.find_machines()]
    )
    found = proxy.variables(cluster.context)
    directly = "localhost,127.0.0.1,::1,10.0.0.5,203.0.113.5,10.0.0.6"
    assert found["no_proxy"] == found["NO_PROXY"] == directly
    assert found["http_proxy"] == found["HTTPS_PROXY"] == url
    assert redact.hide(f"see {url} and pa$s") == "see http://***proxy:3128 and ***"
    assert "pa%24s" not in repr(cluster.environment)
    index = {"index_url": "https://ann:canary-index@index/simple"}
    assert "canary-index" not in repr(SSHCluster("c", "h", environment=index).environment)
    assert proxy.variables(SSHCluster("c", "h").context) == {}
    assert proxy.line(SSHCluster("c", "h").context) == ""
