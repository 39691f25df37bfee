"""Checkpoints over SFTP, to a real sshd."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import copy_files

from flambe.errors import RunError
from flambe.experiment.storage import checkpoint_storage
from flambe.experiment.storage.checkpoint_storage import Storage
from flambe.experiment.storage.sftp import SMALL
from tests.metal import Host, Metal
from tests.metal.conftest import lent

pytestmark = [pytest.mark.integration, pytest.mark.root]
PARTS = ("config", "state")
SIZES = (0, 1, SMALL, SMALL + 1, 5_000_000)


@pytest.fixture(scope="module")
def metal() -> Iterator[Metal]:
    with lent(1) as lot:
        yield lot


@pytest.fixture
def there(
    metal: Metal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Host, Storage]]:
    """Return a host with an empty folder for a run, and where that is."""
    host = metal.hosts[0]
    ssh = tmp_path / "home/.ssh"
    ssh.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home/.flambe"))
    (ssh / "key").write_bytes(metal.key.read_bytes())
    (ssh / "key").chmod(0o600)
    (ssh / "key.known_hosts").write_text(f"{host.address} {host.host_key}\n")
    root = f"/home/{metal.user}/{tmp_path.name}"
    host.run("mkdir", root, user=metal.user)
    yield host, Storage(root, tmp_path.name, host.address, user=metal.user, key="key")
    checkpoint_storage._connected.cache_clear()


def test_files_of_all_sizes_arrive_whole(there: tuple[Host, Storage], tmp_path: Path) -> None:
    host, place = there
    checkpoint = f"{place.root}/stage/variant/checkpoint"
    place.files().makedirs(checkpoint)
    written = {}
    for _ in range(2):  # what is there is written anew
        with place.writing(checkpoint) as folder:
            for size in SIZES:
                written[size] = os.urandom(size)
                path = folder / f"{size}/below/file"
                path.parent.mkdir(parents=True)
                path.write_bytes(written[size])
    files = place.for_tune()
    copy_files(checkpoint, str(tmp_path / "back"), source_filesystem=files)
    for size in SIZES:
        assert (tmp_path / f"back/{size}/below/file").read_bytes() == written[size]
    with pytest.raises(FileNotFoundError), place.writing(f"{place.root}/no/such") as folder:
        (folder / "file").write_text("said")
    cipher = place.files().client.get_extra_info("send_cipher")
    assert cipher == "aes128-gcm@openssh.com"
    assert host.run("ls", place.root).stdout.split() == ["stage"]


@contextlib.contextmanager
def configured(host: Host, change: str) -> Iterator[None]:
    """Change the settings of an sshd as by sed, and back."""
    settings = "/etc/ssh/sshd_config"
    host.run("sed", "-i.before", change, settings)
    host.restart_sshd()
    try:
        yield
    finally:
        host.run("mv", f"{settings}.before", settings)
        host.restart_sshd()


@pytest.mark.parametrize("options", ["", "-P hardlink"])
def test_what_is_the_same_in_two_checkpoints_is_written_once(
    there: tuple[Host, Storage], options: str
) -> None:
    host, place = there

    def write(name: str, state: str) -> None:
        place.files().mkdir(f"{place.root}/{name}")
        with place.writing(f"{place.root}/{name}") as folder:
            (folder / "config").write_text("the same")
            (folder / "state").write_text(state)

    def says(name: str) -> tuple[str, ...]:
        return tuple(host.run("cat", f"{place.root}/{name}/{of}").stdout for of in PARTS)

    def links(name: str) -> list[str]:
        paths = [f"{place.root}/{name}/{of}" for of in PARTS]
        return host.run("stat", "-c", "%h", *paths).stdout.split()

    with configured(host, f"s/^Subsystem.*/& {options}/"):
        write("1", "one")
        write("2", "two")
        assert [says(name) for name in "12"] == [("the same", "one"), ("the same", "two")]
        assert links("1") == links("2") == (["1", "1"] if options else ["2", "1"])
        # What is written anew in one of them leaves the others alone.
        with place.writing(f"{place.root}/2") as folder:
            (folder / "config").write_text("another")
            (folder / "state").write_text("one")
        assert [says(name) for name in "12"] == [("the same", "one"), ("another", "one")]
        # The one that would be linked to is gone.
        host.run("rm", "-r", f"{place.root}/1")
        write("3", "three")
        assert says("3") == ("the same", "three")


def test_an_sshd_without_sftp_is_named(
    there: tuple[Host, Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, place = there
    monkeypatch.setattr(checkpoint_storage, "CONNECT_SECONDS", 1.0)
    said = rf"{host.address}:22.*no channel for SFTP"
    with configured(host, "s/^Subsystem/#&/"), pytest.raises(RunError, match=said):
        place.files()


def test_an_sshd_may_know_other_ciphers(there: tuple[Host, Storage]) -> None:
    host, place = there
    host.restart_sshd("-oCiphers=chacha20-poly1305@openssh.com")
    try:
        place.files().pipe_file(f"{place.root}/file", b"said")
        assert place.files().cat_file(f"{place.root}/file") == b"said"
    finally:
        host.restart_sshd()
