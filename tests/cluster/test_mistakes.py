"""What people get wrong about a cluster: told once, with what to do, and nothing is half made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.place import Place
from tests.experiment.lab import command, environment
from tests.metal import Metal

pytestmark = [pytest.mark.integration, pytest.mark.root, pytest.mark.xdist_group("metal-mistakes")]

ROOM = ".flambe-mistake"  # of the cluster on its hosts


@dataclass(frozen=True)
class Mistake:
    """Entries of the file that are wrong, or a text in place of it; and what is said of it."""

    code: int
    told: list[str]
    entries: dict[str, Any] = field(default_factory=dict)
    text: str = ""


# {first}, {second}, {key}, {folder} stand for what there is.
MISTAKES = {
    "no-key": Mistake(
        2, ["cannot read the key {folder}/nowhere: No such file"], {"key": "nowhere"}
    ),
    "loose-key": Mistake(
        2,
        ["others can read the private key {folder}/loose", "= chmod 600 {folder}/loose"],
        {"key": "loose"},
    ),
    "no-private-key": Mistake(
        1,
        ["orchestrator ({first}): Load key", "= is that a private key?", "tried: ssh -i"],
        {"key": "text"},
    ),
    "locked-key": Mistake(
        1,
        [
            "orchestrator ({first}): ubuntu@{first}: Permission denied",
            "= the key has a passphrase: give it to your agent once   ssh-add {folder}/locked",
        ],
        {"key": "locked"},
    ),
    "public-key": Mistake(
        2,
        ["{folder}/key.pub is a public key", "= {folder}/key\n"],
        {"key": "key.pub"},
    ),
    "unknown-user": Mistake(
        1,
        [
            "orchestrator ({first}): nobody-here@{first}: Permission denied",
            "factory_1 ({second}): nobody-here@{second}: Permission denied",
            "tried: ssh -i {key} nobody-here@{first}",
            "= are the user and the key right?",
            "ssh-add KEY",
        ],
        {"username": "nobody-here"},
    ),
    "wrong-port": Mistake(
        1,
        [
            "orchestrator ({first}:2299): no connection within 30 s",
            "Connection refused",
            "tried: ssh -p 2299 -i {key} ubuntu@{first}",
            "= does its SSH server listen on another port?",
        ],
        {"orchestrator_ip": "{first}:2299"},
    ),
    "unreachable": Mistake(
        1,
        [
            "factory_1 (10.213.255.77): no connection within 30 s",
            "tried: ssh -i {key} ubuntu@10.213.255.77",
            "= is the address right, is the host switched on",
        ],
        {"factories_ips": ["10.213.255.77"]},
    ),
    "no-such-name": Mistake(
        1,
        ["factory_1 (nowhere.invalid): ssh: Could not resolve hostname", "= is the name right?"],
        {"factories_ips": ["nowhere.invalid"]},
    ),
    "twice": Mistake(
        2,
        ["cluster.yaml:4:17: {first} is already the address of the orchestrator"],
        {"factories_ips": ["{first}"]},
    ),
    "no-yaml": Mistake(
        2,
        ["cluster.yaml:4:", "not valid YAML"],
        text="!SSHCluster\nname: lab\nfactories_ips: [{first}\nkey: {key}\n",
    ),
    "no-such-tag": Mistake(
        2,
        ["cluster.yaml:1:1: unknown tag !SSHClutser", "did you mean 'SSHCluster'?"],
        text="!SSHClutser\nname: lab\norchestrator_ip: {first}\nkey: {key}\n",
    ),
    "setup-fails": Mistake(
        1,
        [
            "orchestrator ({first}): exit code 3: echo why >&2; exit 3\n  | why",
            "factory_1 ({second}): exit code 3: echo why >&2; exit 3\n  | why",
        ],
        {"setup_cmds": ["true", "echo why >&2; exit 3", "touch third"]},
    ),
    "setup-needs-root": Mistake(
        1,
        ["exit code 100: apt-get install -y sl", "= the user of the cluster is not root:   sudo"],
        {"setup_cmds": ["apt-get install -y sl"]},
    ),
}


@dataclass
class Outcome:
    """What became of a mistake."""

    folder: Path
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def words(metal: Metal, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what stands in the messages."""
    first, second = (host.address for host in metal.hosts[:2])
    folder = tmp_path_factory.mktemp("mistakes")
    return {"first": first, "second": second, "key": str(metal.key), "folder": str(folder)}


@pytest.fixture(scope="module")
def outcomes(metal: Metal, words: dict[str, str]) -> Iterator[dict[str, Outcome]]:
    """Make all mistakes at once: some are told after half a minute only."""
    base = Path(words["folder"])
    running = {}
    for name, mistake in MISTAKES.items():
        folder = base / name
        folder.mkdir()
        (folder / "loose").write_bytes(metal.key.read_bytes())
        (folder / "loose").chmod(0o644)
        locked = folder / "locked"
        locked.write_bytes(metal.key.read_bytes())
        locked.chmod(0o600)
        change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(locked)]
        subprocess.run(change, check=True, capture_output=True)
        (folder / "key.pub").write_bytes(Path(f"{metal.key}.pub").read_bytes())
        (folder / "text").write_text("no key\n")
        (folder / "text").chmod(0o600)
        entries: dict[str, Any] = {
            "orchestrator_ip": words["first"],
            "factories_ips": [words["second"]],
            "remote_dir": f"{ROOM}-{name}",
        }
        text = mistake.text or metal.cluster_yaml(name, **{**entries, **mistake.entries})
        for word, value in words.items():
            text = text.replace(f"{{{word}}}", value)
        (folder / "cluster.yaml").write_text(text)
        running[name] = subprocess.Popen(
            command("cluster.yaml"),
            cwd=folder,
            env=environment(FLAMBE_HOME=str(folder / "home")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    found = {}
    for name, process in running.items():
        out, err = process.communicate(timeout=120)
        found[name] = Outcome(base / name, process.returncode, out, err)
    yield found
    for name in ("setup-fails", "setup-needs-root"):
        subprocess.run(
            command("down", name),
            env=environment(FLAMBE_HOME=str(base / name / "home")),
            capture_output=True,
            check=False,
            timeout=120,
        )


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake(
    metal: Metal, words: dict[str, str], outcomes: dict[str, Outcome], name: str
) -> None:
    mistake, outcome = MISTAKES[name], outcomes[name]
    assert outcome.code == mistake.code, outcome.out + outcome.err
    for told in mistake.told:
        for word, value in {**words, "folder": str(outcome.folder)}.items():
            told = told.replace(f"{{{word}}}", value)  # noqa: PLW2901
        assert outcome.err.count(told) >= 1, f"{told!r} is not in\n{outcome.err}"
    assert "Traceback" not in outcome.out + outcome.err
    assert outcome.err.count("error: ") == 1
    # Of what is wrong in the file, nothing is kept here; on hosts nothing is half made.
    assert (outcome.folder / "home" / "clusters").exists() == (mistake.code == 1)
    for host in metal.hosts:
        home = host.run("ls", "-A", f"/home/{host.user}").stdout.split()
        assert "third" not in home
        if name.startswith("setup"):
            assert not (host.root / f"home/{host.user}/{ROOM}-{name}/envs").exists()
        else:
            assert f"{ROOM}-{name}" not in home
            assert f"flambe-{name}" not in host.run("ls", f"/home/{host.user}/.ssh").stdout


def test_what_cannot_run_on_a_cluster(metal: Metal, tmp_path: Path) -> None:
    """No ClusterRunnable, no such file, no cluster in the file: no host is asked."""
    place = Place(tmp_path, metal.cluster_yaml("untouched"))
    script = tmp_path / "script.yaml"
    script.write_text("!Script {script: script.yaml}\n")
    before = [host.handshakes() for host in metal.hosts]
    for config, cluster, told in (
        (script, place.cluster, "script.yaml:1:1: !Script cannot run on a cluster"),
        (place.cluster, place.cluster, "!SSHCluster cannot run on a cluster"),
        (place.job(), tmp_path / "nowhere.yaml", f"{tmp_path}/nowhere.yaml"),
        (place.job(), place.job(), "expected a cluster, not !job_ext.Job"),
    ):
        done = place.flambe(config, "--cluster", cluster)
        assert (done.returncode, done.stderr.count("error: ")) == (2, 1), done.stderr
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    gone = place.flambe("status", "nowhere.yaml")
    assert (gone.returncode, gone.stderr) == (2, "error: no such file: nowhere.yaml\n")
    assert [host.handshakes() for host in metal.hosts] == before
