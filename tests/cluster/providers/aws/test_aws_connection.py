"""The connection to AWS, cut at each step: what may be asked again is, and what is left is named."""

from __future__ import annotations

import inspect
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import botocore.parsers
import pytest

from flambe.cluster.providers.aws import rollback
from flambe.cluster.providers.aws.api import aws_errors, instances
from flambe.cluster.providers.aws.api.aws_errors import (
    explain,
    is_lost,
    may_have_happened,
    translate_errors,
)
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.errors import ConfigError, FlambeError, RunError
from flambe.testing import RecordingObserver
from tests.cloud import Cloud
from tests.cloud.conftest import reach
from tests.cluster.providers.aws.conftest import NAMES, Make, left, up
from tests.experiment.lab import environment

pytestmark = [pytest.mark.integration, pytest.mark.faults]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after two tries, and wait a moment between them."""
    monkeypatch.setattr(AwsSession, "attempts", 2)
    monkeypatch.setattr(instances, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(instances, "POLL", 0.05)
    monkeypatch.setattr(instances, "TERMINATE_ATTEMPTS", 3)
    monkeypatch.setattr(rollback, "SEARCH_SECONDS", 2.0)


def errors_of_boto() -> Iterator[Exception]:
    """Yield an error of every class that boto3 raises."""

    def classes(base: type[Exception]) -> Iterator[type[Exception]]:
        yield base
        for each in base.__subclasses__():
            yield from classes(each)

    for cls in classes(botocore.exceptions.BotoCoreError):
        names = set(re.findall(r"{(\w+)", str(getattr(cls, "fmt", ""))))
        names |= {"error"} if "error" in inspect.signature(cls).parameters else set()
        values: dict[str, Any] = dict.fromkeys(names, "x")
        try:
            yield cls(**values)
        except (TypeError, KeyError):
            yield cls.__new__(cls)
    yield botocore.parsers.ResponseParserError("Unable to parse response:\nb'<html>...'")


def test_every_error_of_boto_has_words() -> None:
    errors = list(errors_of_boto())
    assert len(errors) > 80
    for error in errors:
        with pytest.raises(FlambeError) as caught, translate_errors("find instances"):
            raise error
        text, name = str(caught.value), type(error).__name__
        assert text.startswith("AWS: "), name
        assert "= " in text, name  # what helps
        assert "\nb'" not in text
        if not isinstance(caught.value, ConfigError):
            words = aws_errors._explanation(error)[0]
            assert text.startswith(f"AWS: cannot find instances: {words}"), name


@pytest.mark.parametrize(
    ("name", "lost", "happened"),
    [
        ("ConnectionClosedError", True, True),
        ("ReadTimeoutError", True, True),
        ("ResponseStreamingError", True, True),
        ("HTTPClientError", True, True),
        ("IncompleteReadError", True, True),
        ("ResponseParserError", True, True),
        ("SSLError", True, True),
        ("EndpointConnectionError", True, False),
        ("ConnectTimeoutError", True, False),
        ("ProxyConnectionError", True, False),
        ("NoCredentialsError", False, False),
        ("TokenRetrievalError", False, False),
        ("SSOTokenLoadError", False, False),
        ("ParamValidationError", False, False),
    ],
)
def test_which_requests_may_be_asked_again(name: str, lost: bool, happened: bool) -> None:
    (error,) = [one for one in errors_of_boto() if type(one).__name__ == name]
    assert (is_lost(error), may_have_happened(error)) == (lost, happened)


FAULTS = ["drop_reply", "refuse_connection", "truncate_reply", "replace_reply"]
ONE_OF_THEM = ["drop_reply", *(pytest.param(name, marks=pytest.mark.long) for name in FAULTS[1:])]


@pytest.mark.parametrize("fault", ONE_OF_THEM)
def test_a_launch_whose_answer_is_lost_happens_once(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(AwsSession, "attempts", 3)  # of the two roles, one may meet both
    cluster = make()
    _after_preflight(paper, cluster, fault, times=2)
    assert up(cluster) == NAMES
    assert len(left(paper)) == 3
    assert paper.faults.counts[fault.partition("_")[0]] == 2


@pytest.mark.parametrize("fault", ONE_OF_THEM)
def test_a_launch_whose_answers_are_all_lost_is_undone(
    paper: Cloud, make: Make, fault: str
) -> None:
    cluster = make()
    _after_preflight(paper, cluster, fault, times=1000)
    with pytest.raises(RunError) as caught:
        up(cluster)
    assert "AWS: cannot launch" in str(caught.value)
    assert left(paper) == []
    if fault == "refuse_connection":  # nothing came of it, and nobody knows
        assert "flambe down lab --force" in str(caught.value)


@pytest.mark.long
def test_what_cannot_be_looked_for_is_told(paper: Cloud, make: Make) -> None:
    cluster = make()
    _after_preflight(paper, cluster, "drop_reply", times=1000, then="*")
    with pytest.raises(RunError) as caught:
        up(cluster)
    assert len(left(paper)) == 3
    assert "instances of lab may be running all the same" in str(caught.value)
    assert "flambe down lab --force   terminates them" in str(caught.value)
    paper.faults.clear()
    make().remove_machines()
    assert left(paper) == []


def _after_preflight(
    paper: Cloud, cluster: Any, fault: str, times: int, then: str = "RunInstances"
) -> None:
    """Let a fault begin with the first launch; what is asked before it is answered."""
    original = cluster.fleet.instances.launch

    def launch(*arguments: Any) -> Any:
        if not paper.faults.planned:
            getattr(paper.faults, fault)(then, times)
        return original(*arguments)

    cluster.fleet.instances.launch = launch


STEPS = [
    "DescribeKeyPairs",
    "DescribeInstances",
    "DescribeSecurityGroups",
    "DescribeInstanceTypes",
    "GetParameter",
    "DescribeImages",
    "GetServiceQuota",
    "RunInstances",
]


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_that_is_cut_for_good(paper: Cloud, make: Make, step: str, fault: str) -> None:
    """One clear error, nothing left; a quota or a key pair that is not known is let be."""
    getattr(paper.faults, fault)(step, 1000)
    cluster = make()
    try:
        up(cluster)
    except FlambeError as error:
        text = str(error)
        assert text.startswith("AWS: cannot ")
        assert "\n  = " in text
    else:
        assert step in ("GetServiceQuota", "DescribeKeyPairs")
        assert isinstance(cluster.observer, RecordingObserver)
        assert "could not be looked up" in "\n".join(cluster.observer.notes)
        cluster.remove_machines()
    assert left(paper) == []


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_instances_that_cannot_be_described_are_terminated(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    cluster = make()
    launched = cluster.fleet.instances
    original = launched.await_running

    def later(*arguments: Any) -> Any:
        getattr(paper.faults, fault)("DescribeInstances", 1000)
        return original(*arguments)

    monkeypatch.setattr(launched, "await_running", later)
    with pytest.raises(RunError, match="cannot find instances"):
        up(cluster)
    assert left(paper) == []


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_terminated_is_named_beside_the_cause(
    paper: Cloud, make: Make, fault: str
) -> None:
    cluster = make()
    paper.faults.die_pending()
    getattr(paper.faults, fault)("TerminateInstances", 1000)
    with pytest.raises(RunError) as caught:
        up(cluster)
    assert "ended while it was starting" in str(caught.value)
    assert f"aws ec2 terminate-instances --region {paper.region} --instance-ids" in str(
        caught.value
    )
    for machine in left(paper):
        assert machine.id in str(caught.value)


def test_an_interruption_ends_what_is_asked_again(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsSession, "attempts", 1000)
    cluster = make(0)
    _after_preflight(paper, cluster, "drop_reply", times=1000)
    asked = [0]
    original = cluster.session.client("ec2").__class__._make_api_call

    def call(client: Any, name: str, parameters: Any) -> Any:
        if name == "RunInstances" and not parameters.get("DryRun"):
            asked[0] += 1
            if asked[0] == 3:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return original(client, name, parameters)

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", call)
    with pytest.raises(KeyboardInterrupt):
        up(cluster)
    assert left(paper) == []  # it was launched, and nobody had said so


@pytest.mark.long
def test_what_is_tried_again_for_long_is_said(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(AwsSession, "attempts", 4)
    paper.faults.refuse_connection("DescribeInstances", 3)
    with caplog.at_level("INFO", "flambe"):
        assert make(0).fleet.find() == {}
    (line,) = caplog.messages
    assert line.startswith("AWS: the connection was closed before AWS answered (")
    assert line.endswith("; trying again")


@pytest.mark.long
def test_what_was_started_is_stopped_or_named(paper: Cloud, make: Make) -> None:
    up(make(1))
    ids = [machine.id for machine in left(paper)]
    for name in ids:
        reach(paper.machine(name), "running")
    paper.client("ec2").stop_instances(InstanceIds=ids)
    for name in ids:
        reach(paper.machine(name), "stopped")
    paper.faults.replace_reply("StartInstances", 1000)
    paper.faults.drop_reply("StopInstances", 1000)
    with pytest.raises(RunError) as caught:
        up(make(1))
    assert "AWS: cannot start instances" in str(caught.value)
    assert f"aws ec2 stop-instances --region {paper.region}" in str(caught.value)
    for name in ids:
        assert name in str(caught.value)


def test_alarms_that_cannot_be_looked_at_are_no_failure_of_the_end(
    paper: Cloud, make: Make
) -> None:
    cluster = make(1, factories_alarm=True, factories_timeout=1)
    up(cluster)
    paper.faults.drop_reply("DescribeAlarms", 1000)
    cluster.remove_machines()
    assert left(paper) == []
    assert isinstance(cluster.observer, RecordingObserver)
    assert "warning: AWS: the alarms were not deleted" in "\n".join(cluster.observer.notes)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "AWS cannot be reached"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "https://127.0.0.1:{port}"},
            "no trusted TLS connection",
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""},
            "the proxy cannot be reached",
            marks=pytest.mark.long,
        ),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "boto3 could not ask AWS"),
        ({"AWS_ACCESS_KEY_ID": ""}, "there are no credentials"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "the credentials are incomplete"),
        ({"AWS_PROFILE": "nosuch"}, "no such profile"),
        ({"AWS_DEFAULT_REGION": "no region!"}, "no such region"),
    ],
)
def test_what_keeps_boto_from_asking_is_told_in_words(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    make(1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(port=paper.url.rpartition(":")[2]))
        if not value:
            monkeypatch.delenv(name)
    with pytest.raises(FlambeError) as caught:
        up(make(1)) if "AWS_" not in str(variables) else _up_in_this_environment(paper)
    assert words in str(caught.value)
    assert "= " in str(caught.value)  # what helps


def _up_in_this_environment(paper: Cloud) -> None:
    from flambe.cluster.providers.aws import AWSCluster
    from tests.cluster.providers.aws.conftest import keywords

    up(AWSCluster(**keywords(paper, 1)))


@pytest.mark.long
def test_an_answer_that_does_not_come(
    paper: Cloud, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsSession, "read_timeout", 0.5)
    paper.faults.stall("DescribeInstances", 2, 3.0)
    with pytest.raises(RunError, match="AWS did not answer in time"):
        up(make(1))


# What an installation without boto3 is like: nothing of it can be imported.
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("boto3", "botocore", "s3transfer"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from flambe.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "words",
    [["FILE"], ["plan", "FILE"], *(
        pytest.param(words, marks=pytest.mark.long)
        for words in (
            ["status", "FILE"], ["down", "FILE", "--force"], ["logs", "FILE"], ["stop", "FILE"],
            ["fetch", "FILE"], ["exec", "FILE", "--", "true"], ["gc"],
        )
    )],
)  # fmt: skip
def test_without_boto3(tmp_path: Any, words: list[str]) -> None:
    file = tmp_path / "aws.yaml"
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    file.write_text(
        "!AWSCluster {name: lab, factories_num: 1, factories_type: t3.large, orchestrator_type: "
        f"t3.large, key_name: k, key: {key}, creator: me, security_group: sg-1, "
        "subnet_id: subnet-1, environment: {system: true}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *(str(file) if w == "FILE" else w for w in words)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "AWS clusters need boto3" in said
    assert "pip install" in said
    assert "[aws]" in said
    assert "Traceback" not in said


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = RunError("x")
    assert explain("do it", error) is error
