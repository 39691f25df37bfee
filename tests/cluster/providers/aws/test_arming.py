"""How the reaper of an instance is armed: by a script of its user data, at each boot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from ruamel.yaml import YAML

from flambe.cluster.providers.aws import user_data
from flambe.cluster.providers.aws.user_data import ReaperSettings
from tests.experiment.lab import until
from tests.metal.conftest import lent
from tests.metal.host import Host

USER = "ubuntu"


def settings(**more: Any) -> ReaperSettings:
    """Return the settings of an instance, which ends by a line in a file."""
    values = user_data.reaper_settings(-1, 1, USER, ".flambe")
    assert values["escalate"][-1]["write"] == "/proc/sysrq-trigger"
    harmless = {"command": ["sh", "-c", "echo end >> /srv/asked"], "escalate": []}
    quick = {"patience": 1, "check": 0.3, "log": "/srv/console"}
    return cast(ReaperSettings, {**values, **quick, **harmless, **more})


def test_the_user_data_is_small_and_arms_before_all_else() -> None:
    key = user_data.HostKey.new()
    longest = user_data.reaper_settings(167.25, 1.5, "u" * 32, f"/{'d' * 200}")
    text = user_data.user_data(key, longest)
    assert len(text) < user_data.MAX_BYTES - 1024
    config = YAML(typ="safe", pure=True).load(text)
    (command,) = config["bootcmd"]
    assert command[:2] == ["sh", "-c"]
    assert json.dumps(longest) in command[2]
    assert user_data.user_data(key, longest) == text  # a launch is asked for again with the same
    assert {"ARCHIVE", "FIRST", "LAUNCH", "UNIT"}.isdisjoint(command[2].replace("_", " ").split())


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """It restarts whatever ended it, and neither waits for cloud-init nor ends with it."""
    assert "Restart=always" in user_data._UNIT
    assert "StartLimitIntervalSec=0" in user_data._UNIT
    assert "Before=cloud-final.service" in user_data._UNIT
    assert "After=cloud" not in user_data._UNIT
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    (tmp_path / user_data.UNIT).write_text(user_data._UNIT)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / user_data.UNIT],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_archive_runs_by_itself(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(user_data.archive())
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "settings").write_text(json.dumps(settings(
        ready=str(tmp_path / "a.tar"), cluster="archived", timeout=0, typing=0, once=True,
        seen=str(tmp_path / "seen"), log=str(tmp_path / "log"),
        command=["sh", "-c", f"echo end > {tmp_path}/asked"],
    )))  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-S", tmp_path, tmp_path / "settings"], check=False, timeout=60
    )
    assert done.returncode == 0
    assert (tmp_path / "asked").read_text() == "end\n"


# -- on a host ------------------------------------------------------------------------------------


@pytest.fixture
def host() -> Iterator[Host]:
    with lent(1) as metal:
        yield metal.hosts[0]


def arm(host: Host, launch: str = "one", **more: Any) -> None:
    host.run("sh", "-c", user_data.arming(launch, settings(**more)))


def text(host: Host, path: str) -> str:
    return host.run("cat", path, check=False).stdout


def reapers(host: Host) -> list[int]:
    """Return the reapers of a host, as this machine numbers them."""
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in host.pids()}
    return [
        pid for pid, argv in lines.items() if argv[:2] == [b"python3", b"/var/lib/flambe/reaper"]
    ]


@pytest.mark.root
@pytest.mark.faults
@pytest.mark.xdist_group("metal-arming")
def test_a_reaper_comes_back_and_knows_its_launch(host: Host) -> None:
    """Killed, with settings that are gone, and on a host that was made of another one."""
    assert text(host, "/proc/sysrq-trigger") == ""  # it is no trigger on the hosts of tests
    host.run("sh", "-c", "mkdir -p /var/lib/flambe; touch /var/lib/flambe/ready")  # of an image
    arm(host, provisioning=1)
    assert host.run("test", "-e", user_data.READY, check=False).returncode == 1
    until(lambda: text(host, f"{user_data.SETTINGS}.good"), "it has read its settings", 30)
    first = until(lambda: reapers(host), "it runs", 30)
    host.end(first)
    again = until(lambda: reapers(host), "it is back", 60)
    assert again != first
    # At the next boot it is ready still, and the settings of the launch count where its own are
    # spoilt.
    host.run("touch", user_data.READY)
    host.end([pid for pid in host.pids() if b"reaper" in Path(f"/proc/{pid}/cmdline").read_bytes()])
    spoil = f"""echo spoilt > {user_data.SETTINGS}; rm -f {user_data.SETTINGS}.*
    sed -i 's/"provisioning": 1/"provisioning": 0/' {user_data.FIRST_SETTINGS}"""
    host.run("sh", "-c", spoil)
    arm(host, provisioning=1)
    until(lambda: text(host, user_data.SEEN), "it looks", 60)
    host.run("rm", user_data.READY)
    until(lambda: text(host, "/srv/asked"), "it ends", 60)
    assert "it was not ready within 0 hours" in text(host, "/srv/console")


@pytest.mark.root
@pytest.mark.xdist_group("metal-arming")
def test_systemd_keeps_it_where_there_is_one(host: Host) -> None:
    program = (
        '#!/bin/sh\necho "$@" >> /srv/systemctl\n[ "$1" != start ] || exit "$(cat /srv/code)"\n'
    )
    host.run(
        "sh", "-c", "mkdir -p /run/systemd/system; echo 0 > /srv/code; rm -f /usr/bin/systemctl"
    )
    host.run("sh", "-c", "cat > /usr/bin/systemctl; chmod 755 /usr/bin/systemctl", input=program)
    arm(host)
    calls = ["daemon-reload", f"enable {user_data.UNIT}", f"start --no-block {user_data.UNIT}"]
    assert text(host, "/srv/systemctl").splitlines() == calls
    assert text(host, f"/etc/systemd/system/{user_data.UNIT}") == user_data._UNIT
    assert reapers(host) == []
    # Where it does not do so, the reaper is started without it.
    host.run("sh", "-c", "echo 1 > /srv/code")
    arm(host)
    until(lambda: reapers(host), "it runs", 30)
