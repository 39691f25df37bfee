"""The private key of a cluster on AWS, tried and compared before anything is launched."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flambe.cluster.providers.aws.api import instances
from flambe.cluster.providers.aws.api.key_pairs import KeyPair
from flambe.cluster.providers.aws.key_pair import matches
from flambe.cluster.providers.aws.private_key import PrivateKey
from flambe.errors import ConfigError
from flambe.testing import RecordingObserver
from tests.cluster.providers.aws.conftest import NAMES, Make, left, up

if TYPE_CHECKING:
    from tests.cloud import Cloud


def keygen(path: Path, *options: str) -> Path:
    """Make a key as ssh-keygen does: once of a name and of options, as it takes a while."""
    for file, content in _keys(path.name, options).items():
        path.with_name(file).write_bytes(content)
    path.chmod(0o600)
    return path


@functools.cache
def _keys(name: str, options: tuple[str, ...]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["ssh-keygen", "-q", "-C", "", "-f", f"{folder}/{name}", *options]
        subprocess.run([*command, *([] if "-N" in options else ["-N", ""])], check=True)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def piped(first: list[str], second: list[str]) -> str:
    """Return what the second of two commands makes of the output of the first."""
    data = subprocess.run(first, check=True, capture_output=True).stdout
    return subprocess.run(second, input=data, check=True, capture_output=True).stdout.decode()


# The commands of https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html


def made_by_ec2(path: Path) -> str:
    first = ["openssl", "pkcs8", "-in", str(path), "-topk8", "-nocrypt", "-outform", "DER"]
    return piped(first, ["openssl", "sha1", "-c"]).rpartition("= ")[2].strip()


def imported(path: Path) -> str:
    first = ["openssl", "rsa", "-in", str(path), "-pubout", "-outform", "DER"]
    return piped(first, ["openssl", "md5", "-c"]).rpartition("= ")[2].strip()


def of_ed25519(path: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True)
    return done.stdout.split()[1].decode().removeprefix("SHA256:") + "="


@pytest.mark.parametrize(
    ("options", "fingerprint"),
    [
        (["-t", "rsa", "-b", "2048", "-m", "PEM"], made_by_ec2),
        (["-t", "rsa", "-b", "2048", "-m", "PEM"], imported),
        (["-t", "rsa", "-b", "2048", "-m", "PKCS8"], made_by_ec2),
        (["-t", "rsa", "-b", "2048", "-m", "PKCS8"], imported),
        (["-t", "ed25519"], of_ed25519),
    ],
)
def test_fingerprints_are_those_of_ec2(
    tmp_path: Path, options: list[str], fingerprint: Any
) -> None:
    key, other = (keygen(tmp_path / name, *options) for name in ("key", "other"))
    pair = KeyPair("mine", fingerprint=fingerprint(key))
    assert matches(PrivateKey.read(key), pair) is True
    assert matches(PrivateKey.read(other), pair) is False


def test_a_key_whose_form_tells_nothing_is_let_be(tmp_path: Path) -> None:
    """An RSA key that EC2 made, and that was stored in the form of OpenSSH since."""
    key = keygen(tmp_path / "key", "-t", "rsa", "-b", "2048", "-m", "PEM")
    fingerprint = made_by_ec2(key)
    pair = KeyPair("mine", fingerprint=fingerprint)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "", "-f", key], check=True)
    assert b"OPENSSH" in key.read_bytes()
    assert matches(PrivateKey.read(key), pair) is None
    public = key.with_name("key.pub").read_text()
    assert matches(PrivateKey.read(key), KeyPair("mine", public, fingerprint)) is True


@pytest.mark.parametrize("form", [[], ["-m", "PEM"]])
def test_the_public_half_of_a_key_with_a_passphrase(tmp_path: Path, form: list[str]) -> None:
    key = keygen(tmp_path / "key", "-t", "rsa", "-b", "2048", "-N", "secret", *form)
    read = PrivateKey.read(key)
    assert read.is_encrypted
    pair = KeyPair("mine", key.with_name("key.pub").read_text())
    assert matches(read, pair) is True
    key.with_name("key.pub").unlink()
    assert matches(PrivateKey.read(key), pair) is (None if form else True)


def test_what_is_not_a_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("PuTTY-User-Key-File-3: ssh-ed25519\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be used"):
        PrivateKey.read(path)


def test_a_wrong_key_is_named_before_anything_is_asked_for(
    paper: Cloud, make: Make, tmp_path: Path
) -> None:
    key = keygen(tmp_path / "key", "-t", "ed25519")
    with pytest.raises(ConfigError) as caught:
        up(make(1, key=str(key)))
    assert f"{key} is not the private key of the key pair 'tester'" in str(caught.value)
    assert of_ed25519(key).rstrip("=") in str(caught.value)
    material = key.with_name("key.pub").read_bytes()
    paper.client("ec2").import_key_pair(KeyName="mine", PublicKeyMaterial=material)
    with pytest.raises(ConfigError, match="it is that of mine"):
        up(make(1, key=str(key)))
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        up(make(1, key=str(key), key_name="mime"))
    assert paper.calls.count("RunInstances") == 0
    assert up(make(1, key=str(key), key_name="mine")) == NAMES[:2]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lend an agent of ssh of this test alone."""
    path = tmp_path / "agent"
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
        process.terminate()


def test_a_key_with_a_passphrase_needs_an_agent(
    paper: Cloud, make: Make, tmp_path: Path, agent: Path
) -> None:
    key = keygen(tmp_path / "key", "-t", "ed25519")
    material = key.with_name("key.pub").read_bytes()
    paper.client("ec2").import_key_pair(KeyName="mine", PublicKeyMaterial=material)
    subprocess.run(["ssh-add", "-q", key], check=True)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", key], check=True)
    assert up(make(0, key=str(key), key_name="mine")) == NAMES[:1]
    make(0).remove_machines()
    subprocess.run(["ssh-add", "-q", "-D"], check=True, env={**os.environ})
    with pytest.raises(ConfigError) as caught:
        up(make(0, key=str(key), key_name="mine"))
    assert f"the key {key} has a passphrase, and no agent holds it" in str(caught.value)
    assert f"ssh-add {key}" in str(caught.value)
    assert left(paper) == []


def test_without_the_right_to_look_at_key_pairs_it_is_said(paper: Cloud, make: Make) -> None:
    paper.faults.deny("ec2:DescribeKeyPairs")
    cluster = make(0)
    assert up(cluster) == NAMES[:1]
    assert isinstance(cluster.observer, RecordingObserver)
    assert "the key pair could not be looked up" in "\n".join(cluster.observer.notes)


def test_what_is_waited_for_is_shown(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "PROGRESS_INTERVAL", 0.5)
    paper.faults.boot_delay(1.5, 2.5)
    cluster = make(1)
    up(cluster)
    assert isinstance(cluster.observer, RecordingObserver)
    notes = "\n".join(cluster.observer.notes)
    assert "AWS: waiting for 2 instances to run" in notes
    assert "of 2 run, after" in notes
