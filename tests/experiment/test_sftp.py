"""Checkpoints over SFTP, to a real sshd."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow.fs import copy_files

from flambe.experiment import storage
from flambe.experiment.sftp import SMALL
from flambe.experiment.storage import Storage
from tests.metal import Host, Metal
from tests.metal.conftest import lent

pytestmark = pytest.mark.root
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
    storage._connected.cache_clear()


def test_files_of_all_sizes_arrive_whole(there: tuple[Host, Storage], tmp_path: Path) -> None:
    host, place = there
    for size in SIZES:
        path = tmp_path / f"from/{size}/file"
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(size))
    files = place.for_tune()
    target = f"{place.root}/stage/variant/checkpoint"
    for _ in range(2):  # what is there is written anew
        copy_files(str(tmp_path / "from"), target, destination_filesystem=files)
    copy_files(target, str(tmp_path / "back"), source_filesystem=files)
    for size in SIZES:
        written = (tmp_path / f"from/{size}/file").read_bytes()
        assert (tmp_path / f"back/{size}/file").read_bytes() == written
    assert files is not None
    with files.open_output_stream(f"{place.root}/parts") as stream:
        for _ in range(3):
            stream.write(b"x" * (SMALL // 2))
    assert files.get_file_info(f"{place.root}/parts").size == SMALL // 2 * 3
    with pytest.raises(FileNotFoundError):
        files.open_output_stream(f"{place.root}/no/such/file").close()
    cipher = place.files().client.get_extra_info("send_cipher")
    assert cipher == "aes128-gcm@openssh.com"
    assert host.run("ls", place.root).stdout.split() == ["parts", "stage"]


def test_an_sshd_may_know_other_ciphers(there: tuple[Host, Storage]) -> None:
    host, place = there
    host.restart_sshd("-oCiphers=chacha20-poly1305@openssh.com")
    try:
        place.files().pipe_file(f"{place.root}/file", b"said")
        assert place.files().cat_file(f"{place.root}/file") == b"said"
    finally:
        host.restart_sshd()
