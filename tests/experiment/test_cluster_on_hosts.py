"""One cluster of real hosts: resources and secrets, Ray between runs, other users, and its end."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flambe.progress import Status
from tests.cluster.provisioning.test_gpus import plug_in
from tests.experiment.farm import Farm, eventually, farm_on, running
from tests.metal import Host
from tests.metal.conftest import lent
from tests.metal.machine import command_line, started

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("metal-experiment-hosts")]
CANARY, OTHER = "canary-d41f0b7c9e", "canary-55ab03c1f2"
LONG = """
grow: !crops.Growth {rate: !g [0.1, 0.2], steps: 500, seconds: 0.5}
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with lent(3) as metal:
        for host in metal.hosts[1:]:
            plug_in(host, [0, 0])
        with farm_on(metal, tmp_path_factory.mktemp("farm")) as farm:
            yield farm


@contextlib.contextmanager
def served(folder: Path, address: str) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder; yield its address and what was asked for."""
    asked: list[str] = []

    class Counting(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(f"{self.client_address[0]} {self.requestline}")

    handler = functools.partial(Counting, directory=str(folder))
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{address}:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def exposed(host: Host, words: list[str]) -> list[str]:
    """Return the processes of a host in whose command line or environment one of the words is."""
    found = []
    for pid in host.pids():
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            if any(word.encode() in text for word in words):
                found.append(f"{name} {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
    return found


def written(host: Host, words: list[str]) -> list[str]:
    """Return the files of a host in which one of the words is."""
    patterns = [part for word in words for part in ("-e", word)]
    done = host.run(
        *("grep", "-rlIF", *patterns, "/home", "/tmp", "/var/log", "/root"), check=False
    )
    return done.stdout.split()


def listening(host: Host) -> set[tuple[str, int]]:
    """Return the addresses and ports on which a host listens."""
    found = set()
    for name in ("tcp", "tcp6"):
        for row in Path(f"/proc/{host.first}/net/{name}").read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A":
                address, _, port = fields[1].rpartition(":")
                found.add((address, int(port, 16)))
    return found


def owner(pid: int) -> int:
    """Return the user that a process is of."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


def test_gpus_resources_and_secrets_reach_the_trials_and_nobody_else(farm: Farm) -> None:
    (farm.folder / "table.txt").write_text("a table")
    (farm.folder / "data").mkdir()
    (farm.folder / "data" / "part").write_text("a part")
    (farm.folder / "web").mkdir()
    (farm.folder / "web" / "page.txt").write_text("a page")
    secrets = farm.folder / "secrets.ini"
    secrets.write_text(
        f"[flambe]\nfactories = environment\n[environment]\nCANARY =\n[API]\ntoken = {OTHER}\n"
    )
    secrets.chmod(0o600)
    assert farm.metal is not None
    hosts = farm.hosts
    pipeline = "".join(
        f"{name}: !crops.Look {{path: !@ {resource}, variable: CANARY, n: !g [1, 2, 3, 4], "
        "seconds: 2.0}\n"
        for name, resource in (("a", "table"), ("b", "data"), ("c", "page"), ("d", "there"))
    )
    with served(farm.folder / "web", farm.metal.gateway) as (url, asked):
        more = (
            f"resources:\n  table: table.txt\n  data: data\n  page: {url}/page.txt\n"
            "  there: !cluster /srv/there"
        )
        file = farm.write("ways", pipeline, more=more)
        for host in hosts[:2]:
            host.run("tee", "/srv/there", input="it is there")
        assert "there is no /srv/there on factory_2" in farm.run(file).ends(2)
        hosts[2].run("tee", "/srv/there", input="it is there")
        run = farm.run(file, "--secrets", str(secrets), CANARY=CANARY)
        run.says("gpus ", times=2)
        # While it runs: the secrets are in one file of each host, and in no list of processes.
        words = [CANARY, OTHER]
        assert [exposed(host, words) for host in hosts] == [[], [], []]
        for host in hosts:
            files = [path for path in written(host, words) if not path.endswith("/secrets.ini")]
            assert files == []
            job = "job/orchestrator" if host is hosts[0] else "job"
            place = f"/home/{farm.metal.user}/.flambe/clusters/farm/{job}/secrets.ini"
            assert host.run("stat", "-c", "%a %U", place).stdout == f"600 {farm.metal.user}\n"
        assert OTHER not in hosts[1].run("cat", place).stdout
        text = run.ends()
        assert len([line for line in asked if line.endswith("GET /page.txt HTTP/1.1")]) == 1
    assert asked[0].startswith(hosts[0].address)
    assert CANARY not in text
    assert OTHER not in text
    digest = hashlib.sha256(CANARY.encode()).hexdigest()[:16]
    assert text.count(f"variable {digest}") == 16
    assert text.count("a leak: ***") == 16
    assert [written(host, words) for host in hosts] == [[], [], []]
    assert all(
        not list((host.root / f"home/{farm.metal.user}/.flambe/clusters/farm/job").glob("sec*"))
        for host in hosts
    )
    for name, stage in (("a table", "a"), ("a part", "b"), ("a page", "c"), ("it is there", "d")):
        assert text.count(f"'{name}'") == 4, stage
    folder = farm.output("ways")
    seen: dict[str, set[str]] = {}
    inodes: dict[tuple[str, str], set[str]] = {}
    for one in folder.read_variants().values():
        log = (folder.variant(one.stage, one.name) / "variant.log").read_text()
        seen.setdefault(one.host, set()).update(re.findall(r"gpus '([^']*)'", log))
        found = re.findall(r"found (\S+) (\d+)", log)
        inodes.setdefault((one.host, one.stage), set()).update(inode for _, inode in found)
    # Each trial has one GPU of its host for itself; a resource is on each disk once.
    assert seen == {"factory_1": {"GPU-0", "GPU-1"}, "factory_2": {"GPU-0", "GPU-1"}}
    assert all(len(numbers) == 1 for numbers in inodes.values())


def test_ray_is_kept_between_runs_and_shut_to_those_without_its_token(farm: Farm) -> None:
    pipeline = "grow: !crops.Growth {rate: !g [0.1, 0.2], steps: 1}"
    farm.run(farm.write("one", pipeline)).ends()
    hosts = farm.hosts
    nodes = [[(pid, started(pid)) for pid in running(host, "raylet/raylet")] for host in hosts]
    assert [len(node) for node in nodes] == [1, 1, 1]
    farm.run(farm.write("two", pipeline)).ends()
    assert nodes == [
        [(pid, started(pid)) for pid in running(host, "raylet/raylet")] for host in hosts
    ]
    (gcs,) = running(hosts[0], "gcs_server")
    port = next(
        part.partition("=")[2]
        for part in Path(f"/proc/{gcs}/cmdline").read_text().split("\0")
        if part.startswith("--gcs_server_port")
    )
    environment = next(iter(sorted((farm.state.parents[1] / "envs").glob("*/bin/python"))))
    python = str(environment).partition("/root")[2]
    code = f"import ray; ray.init(address='{hosts[0].address}:{port}', logging_level=50)"
    assert farm.metal is not None
    user = farm.metal.user

    def connect(variables: list[str]) -> subprocess.CompletedProcess[str]:
        command = ("timeout", "50", "env", *variables, python, "-c", code)
        return hosts[1].run(*command, user=user, check=False, timeout=60)

    attempts: tuple[list[str], ...] = ([], ["RAY_AUTH_MODE=token", f"RAY_AUTH_TOKEN={'0' * 64}"])
    with ThreadPoolExecutor(len(attempts)) as pool:
        for done in pool.map(connect, attempts):
            assert done.returncode != 0
            assert re.search("[Aa]uth|token", done.stdout + done.stderr), done.stderr
    # Ray's own servers listen on all addresses, and ask for the token; these are for this host only.
    assert not running(hosts[0], "dashboard/dashboard.py")
    (site,) = running(hosts[0], "--tensorboard-port")
    words = command_line(site)
    own = {int(words[words.index(f"--{n}") + 1]) for n in ("port", "tensorboard-port")}
    found = {port: address for address, port in listening(hosts[0]) if port in own}
    assert found == dict.fromkeys(own, "0100007F")


@pytest.mark.long
def test_force_stops_that_run_only_and_down_leaves_nothing_of_ours(farm: Farm) -> None:
    hosts = farm.hosts
    assert farm.metal is not None
    farm.flambe(farm.cluster)
    # Somebody else works on the same hosts, with a Ray of theirs.
    python = str(next(iter((farm.state.parents[1] / "envs").glob("*/bin/python"))))
    python = python.partition("/root")[2]
    theirs = {}
    for host in hosts[:2]:
        host.add_user("ann")
        host.run("chmod", "-R", "o+rX", f"/home/{farm.metal.user}/.flambe/envs")
        host.run("chmod", "o+x", f"/home/{farm.metal.user}", f"/home/{farm.metal.user}/.flambe")
        begin = f"cd; {python} -m ray.scripts.scripts start --head --port 6399 --num-cpus 1"
        host.run("sh", "-c", f"{begin} --include-dashboard false", user="ann", timeout=120)
        theirs[host] = [(pid, started(pid)) for pid in running(host, "raylet/raylet", "6399")]
        assert len(theirs[host]) == 1
    file = farm.write("long", LONG, more="devices: {cpu: 1}")
    first = farm.run(file)
    first.says("step 3 of", times=2)
    drivers = running(hosts[0], "job/config.yaml")
    refused = farm.run(farm.write("other", LONG)).ends(1)
    assert "the cluster is in use" in refused
    assert "--force stops it" in refused
    assert str(file) in refused
    in_the_way = {one.name for one in farm.output("long").read_variants().values()}
    second = farm.run(file, "--force")
    second.says("step 1 of", times=2)
    assert all(started(pid) == "" for pid in drivers if pid not in running(hosts[0], "config.yaml"))
    (aside,) = farm.output("long").root.parent.glob("output__long.*")
    assert {path.name for path in (aside / "grow").iterdir() if path.is_dir()} == in_the_way
    status = farm.flambe("status", "farm")
    assert "running" in status
    farm.flambe("stop", "farm")
    second.process.wait(60)
    assert Status.RUNNING not in {
        one.status for one in farm.output("long").read_variants().values()
    }
    farm.flambe("down", "farm", "--force")
    user = int(hosts[0].run("id", "-u", farm.metal.user).stdout)

    def left(host: Host) -> list[str]:
        return [
            line
            for pid in host.pids()
            if (line := " ".join(command_line(pid))) and "sshd" not in line and owner(pid) == user
        ]

    eventually(lambda: not any(left(host) for host in hosts), "nothing of ours runs", 30)
    for host in hosts:
        home = host.root / "home" / farm.metal.user
        assert not list((host.root / "tmp").glob("flambe-ray-*"))
        assert "flambe" not in (home / ".ssh/authorized_keys").read_text()
        assert not list((home / ".ssh").glob("flambe-*"))
        assert not written(host, [CANARY])
    for nodes in theirs.values():
        assert [(pid, started(pid)) for pid, _ in nodes] == nodes


@pytest.mark.long
def test_a_factory_that_cannot_join_is_named_with_what_its_node_said(farm: Farm) -> None:
    assert farm.metal is not None
    user, host = farm.metal.user, farm.hosts[2]
    place = f"farm /home/{user}/.flambe {user} factory_2"
    scratch = f"/tmp/flambe-ray-{hashlib.sha256(place.encode()).hexdigest()[:10]}"
    farm.flambe("down", farm.cluster, "--force")
    host.run("touch", scratch)  # it is root's, and in the way
    try:
        file = farm.write("one", "grow: !crops.Growth {rate: 0.1, steps: 1}")
        said = farm.run(file, "--force", FLAMBE_JOIN_DEADLINE="30").ends(1)
    finally:
        host.run("rm", "-f", scratch)
    assert "these factories have not joined Ray: factory_2" in said
    assert re.search(rf"factory_2\n  \| .*(\n  \| .*)*{scratch}", said), said
