"""Secrets and credentials do not reach logs, figures, terminals or files."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flambe.logging import console, redact
from tests.cloud import Cloud
from tests.cloud.conftest import lent
from tests.experiment.lab import COMMAND


@pytest.fixture
def paper() -> Iterator[Cloud]:
    with lent(hosts=False) as cloud:
        cloud.faults.boot_delay(0, 0.02)
        yield cloud


def log_text() -> str:
    return "".join(path.read_text() for path in (console.home() / "logs").iterdir())


# -- credentials of AWS ---------------------------------------------------------------------------


AWS_FILE = """\
!AWSCluster
name: lab
factories_num: 1
factories_type: t3.large
orchestrator_type: t3.large
profile: lab
key_name: {key_name}
key: {key}
creator: me@example.com
security_group: {security_group}
subnet_id: {subnet}
"""


@pytest.mark.parametrize("verbose", [[], ["-v"]], ids=["plain", "verbose"])
def test_aws_credentials_do_not_reach_the_log_or_the_terminal(
    paper: Cloud, home: Path, tmp_path: Path, verbose: list[str]
) -> None:
    """SecretAccessKey and SessionToken of a role, signed headers and the first-boot host key."""
    prepared = paper.prepared
    file = tmp_path / "aws.yaml"
    file.write_text(
        AWS_FILE.format(
            key_name=prepared.key_name,
            key=prepared.key,
            security_group=prepared.security_group,
            subnet=prepared.subnet,
        )
    )
    (tmp_path / "config").write_text(
        "[profile lab]\nrole_arn = arn:aws:iam::123456789012:role/lab\nsource_profile = base\n"
        "region = us-east-1\n"
    )
    (tmp_path / "credentials").write_text(
        "[base]\naws_access_key_id = AKIABASEKEY\naws_secret_access_key = BASESECRET\n"
    )
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
        **{k: v for k, v in paper.environment.items() if not k.startswith("AWS_")},
        "AWS_ENDPOINT_URL": paper.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "plan", str(file), *verbose],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr + log_text()
    assert "to be made   orchestrator, factory_1" in text
    for leak in (
        "SecretAccessKey",
        "SessionToken",
        "BASESECRET",
        "Authorization",
        "X-Amz-Security-Token",
        "PRIVATE KEY",
        "UserData",
    ):
        assert leak not in text


def test_credentials_of_a_session_are_hidden_from_their_first_use_on(
    paper: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a role, and those that it is assumed with."""
    boto3 = pytest.importorskip("boto3")
    from flambe.cluster.aws.ec2 import Ec2

    (tmp_path / "config").write_text(
        "[profile lab]\nrole_arn = arn:aws:iam::123456789012:role/lab\nsource_profile = base\n"
        "region = us-east-1\n"
    )
    (tmp_path / "credentials").write_text(
        "[base]\naws_access_key_id = AKIABASEKEY\naws_secret_access_key = BASESECRET\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", paper.url)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert boto3 is not None
    cloud = Ec2("us-east-1", "lab")
    cloud.instances({})
    used = cloud.session.get_credentials().get_frozen_credentials()
    assert used.secret_key and used.token
    for value in (used.secret_key, used.token, "BASESECRET"):
        assert redact.hide(f"it is {value}.") == "it is ***."


def test_the_host_key_of_a_first_boot_is_hidden() -> None:
    from flambe.cluster.aws.userdata import HostKey

    key = HostKey.new()
    for line in key.private.splitlines():
        assert redact.hide(f"> {line}") == "> ***"


@pytest.mark.parametrize("verbose", [False, True])
def test_debug_of_other_libraries_goes_nowhere(
    verbose: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a library has set its own logger to DEBUG."""
    library = logging.getLogger("somebody.elses")
    monkeypatch.setattr(library, "level", logging.DEBUG)
    console.setup(verbose=verbose)
    library.debug("headers: s3cret")
    logging.getLogger("botocore.auth").debug("CanonicalRequest: s3cret")
    library.warning("their trouble")
    logging.getLogger("flambe.x").debug("a detail of ours")
    shown = log_text() + capsys.readouterr().err
    assert "s3cret" not in shown
    assert "their trouble" in log_text()
    assert "a detail of ours" in log_text()
