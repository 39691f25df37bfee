"""A cloud by hand: the commands that make one, look at it, break it and remove it."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.cloud import __main__ as command

pytestmark = pytest.mark.integration

OWNER = "099720109477"


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "cloud.json"
    monkeypatch.setenv("CLOUD_STATE", str(state))  # for the process that is the cloud
    monkeypatch.setattr(command, "STATE", state)
    monkeypatch.setattr(command, "LOG", state.with_suffix(".log"))

    def run(*words: str, code: int = 0) -> str:
        assert command.main(words) == code
        told = capsys.readouterr()
        return told.err if code else told.out

    assert "first: python -m tests.cloud up" in run("down", code=1)
    for line in run("up", "--paper").splitlines():
        monkeypatch.setenv(*line.removeprefix("export ").split("=", 1))
    try:
        ec2 = boto3.client("ec2")
        [image, *_] = ec2.describe_images(Owners=[OWNER])["Images"]
        request = {"ImageId": image["ImageId"], "InstanceType": "t3.micro"}
        ec2.run_instances(**request, MinCount=1, MaxCount=1)
        assert '"type": "t3.micro"' in run("instances")
        assert '"action": "RunInstances"' in run("calls")
        assert "security_group: sg-" in run("prepared")
        assert "AWS_ENDPOINT_URL=http://127.0.0.1:" in run("environment")
        run("fault", "deny", 'actions="ec2:DescribeImages"', code=1)
        run("fault", "fail", "action=DescribeImages", "status=400", "code=Blocked")
        with pytest.raises(ClientError, match="Blocked"):
            ec2.describe_images(Owners=[OWNER])
        assert "nonsense" in run("fault", "nonsense", code=1)
        assert "there is one already" in run("up", "--paper", code=1)
        url = command.state()["url"]
    finally:
        run("down")
    assert not state.exists()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url)
