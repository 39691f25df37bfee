"""Processes are told apart by more than the names of their machine and user, and their number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flambe.remote import identity


def test_who_is_gone_and_who_cannot_be_seen() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        one = identity.of_process(process.pid)
        assert identity.is_here(one)
        assert not identity.is_gone(one)
        process.kill()
    assert identity.is_gone(one)
    # The number was used again.
    mine = identity.of_process(os.getpid())
    assert identity.is_gone({**mine, "begun": "1"})
    for name in ("machine", "boot", "namespace"):
        other = {**one, name: "another"}
        assert not identity.is_here(other), name
        assert not identity.is_gone(other), name
        assert not identity.is_gone({**one, name: ""}), name
    assert not identity.is_gone({})


def test_a_machine_has_one_word(home: Path) -> None:
    code = "from flambe.remote import identity; print(identity.of_process(1)['machine'])"
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    words = {one.communicate()[0].strip() for one in started}
    assert words == {(home / identity.MACHINE).read_text()}
    assert len(words.pop()) == 32
    assert (home / identity.MACHINE).stat().st_mode & 0o077 == 0


@pytest.mark.root
def test_a_container_is_another_machine() -> None:
    code = "from flambe.remote import identity; import json, os\n"
    code += "print(json.dumps(identity.of_process(os.getpid())))"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    other = json.loads(done.stdout)
    assert other["boot"] == identity.boot()
    assert not identity.is_gone(other)
