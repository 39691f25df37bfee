"""Secrets and credentials do not reach logs, figures, terminals or files."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import os
import re
import shlex
import subprocess
import sys
import traceback
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flambe.errors import ComponentError, Place
from flambe.logging import (
    capture,
    console,
    events,
    log,
    log_histogram,
    log_image,
    log_pr_curves,
    log_text,
    redact,
)
from flambe.logging.recorder import DirectChannel, Recorder
from tests.cloud import Cloud
from tests.cloud.conftest import lent
from tests.experiment.lab import COMMAND

pytestmark = pytest.mark.integration


@pytest.fixture
def paper() -> Iterator[Cloud]:
    with lent(hosts=False) as cloud:
        cloud.faults.boot_delay(0, 0.02)
        yield cloud


def logged() -> str:
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
    text = done.stdout + done.stderr + logged()
    assert "to create    orchestrator, factory_1" in text
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
    from flambe.cluster.providers.aws.api.aws_session import AwsSession
    from flambe.cluster.providers.aws.api.instances import Instances

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
    session = AwsSession("us-east-1", "lab")
    Instances(session).list_live({})
    used = session.boto.get_credentials().get_frozen_credentials()
    assert used.secret_key and used.token
    for value in (used.secret_key, used.token, "BASESECRET"):
        assert redact.hide(f"it is {value}.") == "it is ***."


def test_the_host_key_of_a_first_boot_is_hidden() -> None:
    from flambe.cluster.providers.aws.user_data import HostKey

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
    shown = logged() + capsys.readouterr().err
    assert "s3cret" not in shown
    assert "their trouble" in logged()
    assert "a detail of ours" in logged()


# -- names of figures -----------------------------------------------------------------------------


def test_a_secret_in_the_name_of_a_figure_reaches_no_file(tmp_path: Path) -> None:
    """Also as a key of a mapping, in a text, and in the name of what TensorBoard refuses."""
    redact.add("s3cret-value")
    recorder = Recorder(tmp_path)
    recorder.open("v1", "train/one", "train one")
    events.use(DirectChannel(recorder), "v1")
    log("loss s3cret-value", 1.0)
    log("loss", {"s3cret-value": 1.0, "b": {"s3cret-value": "text"}})
    log("text", "it is s3cret-value")
    log_histogram("histogram s3cret-value", [1.0, 2.0])
    log_histogram("odd s3cret-value", [])
    log_image("image s3cret-value", np.zeros((4, 5)))
    log_pr_curves("curve s3cret-value", [0, 1], [0.1, 0.9])
    log_text("text s3cret-value", "s3cret-value")
    recorder.close()
    files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.startswith("events.") for name in files)
    assert {"run.log", "metrics.jsonl"} < set(files)
    assert not [name for name, data in files.items() if b"s3cret" in data]
    tags = [json.loads(line)["tag"] for line in files["metrics.jsonl"].splitlines()]
    assert tags == ["loss ***", "loss/***", "loss/b/***", "text", "text ***"]


def test_the_name_of_a_figure_is_hidden_where_there_is_no_recorder(home: Path) -> None:
    redact.add("s3cret-value")
    console.setup()
    log("s3cret-value", 1.0)
    assert "***: 1.0" in logged()
    assert "s3cret" not in logged()


# -- encodings ------------------------------------------------------------------------------------

SECRET = 'p4ss/w"ord+ é\\x'
DATA = SECRET.encode()
# What is written of a secret, and what is shown of it, as a regular expression.
WRITTEN = {
    "as it is": (SECRET, r"\*\*\*"),
    "percent": (urllib.parse.quote(SECRET, safe=""), r"\*\*\*"),
    "the path of a URL": (urllib.parse.quote(SECRET), r"\*\*\*"),
    "a form": (urllib.parse.urlencode({"a": SECRET}), r"a=\*\*\*"),
    "percent in lower case": ("p4ss%2fw%22ord%2b%20%c3%a9%5cx", r"\*\*\*"),
    "JSON": (json.dumps({"a": SECRET}), r'\{"a": "\*\*\*"\}'),
    "JSON in UTF-8": (json.dumps([SECRET], ensure_ascii=False), r'\["\*\*\*"\]'),
    "repr": (repr({"a": SECRET}), r"\{'a': '\*\*\*'\}"),
    "ascii": (ascii(SECRET), r"'\*\*\*'"),
    "repr of bytes": (repr(DATA), r"b'\*\*\*'"),
    "HTML": (html.escape(SECRET), r"\*\*\*"),
    "a command": (shlex.join(["login", SECRET]), r"login '\*\*\*'"),
    "hexadecimal": (DATA.hex(), r"\*\*\*"),
    "HEXADECIMAL": (DATA.hex().upper(), r"\*\*\*"),
    "base64": (base64.b64encode(DATA).decode(), r"\*\*\*"),
    "base64 for URLs": (base64.urlsafe_b64encode(DATA).decode(), r"\*\*\*"),
    # Characters that have bits of the neighbours too may stay.
    **{
        f"base64 of {head!r} and more": (
            base64.b64encode(head + DATA + b"\n").decode(),
            r"[\w+/]{%d}\*\*\*[\w+/=]{0,4}" % -(-len(head) * 8 // 6),
        )
        for head in (b"a:", b"ab:", b"abc:", b"abcd:")
    },
}


@pytest.mark.parametrize(("written", "shown"), WRITTEN.values(), ids=WRITTEN)
def test_a_secret_is_hidden_in_the_common_encodings(written: str, shown: str) -> None:
    redact.add(SECRET)
    assert re.fullmatch(f"> {shown} <", redact.hide(f"> {written} <"))


@given(st.text(min_size=redact.SHORTEST), st.binary(), st.binary())
def test_any_secret_is_hidden_in_the_encoding_of_what_it_is_in(
    secret: str, head: bytes, tail: bytes
) -> None:
    redact._values.clear()
    redact.add(secret)
    data = head + secret.encode("utf-8", "surrogatepass") + tail
    for written in (
        data.hex(),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
        urllib.parse.quote(data, safe=""),
    ):
        assert redact.MASK in redact.hide(written)


def test_an_error_that_holds_an_encoded_secret_is_hidden() -> None:
    """Ray writes what is raised to error.txt: with the line of the configuration, too."""
    redact.add("s3cret-value")
    text = base64.b64encode(b"me:s3cret-value").decode()
    place = Place("a.yaml", 1, 1, text="token: s3cret-value")
    error = ComponentError(f"401 for {text}", place, "running s3cret-value", text, text)
    assert redact.holds(ValueError(f"401 for {text}"))
    shown = "".join(traceback.format_exception(redact.hidden(error)))
    assert "***" in shown
    assert text[4:-4] not in shown and "s3cret" not in shown


# -- in pieces ------------------------------------------------------------------------------------


def guarded(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Guard streams of this test: pytest sets its own where a test begins."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    redact.guard_streams()
    return out


def test_a_secret_that_is_printed_in_pieces_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    out = guarded(monkeypatch)
    redact.add("s3cret-value")
    print("it is s3c", end="", flush=True)
    assert out.getvalue() == "it is "
    print("ret-", end="", flush=True)
    print("value.", end="")
    assert out.getvalue() == "it is ***."
    for letter in "s3cret-value\n":
        sys.stdout.write(letter)
    assert out.getvalue() == "it is ***.***\n"


def test_lines_are_not_delayed_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    out = guarded(monkeypatch)
    redact.add("s3cret-value")
    print("ends with s3cret")
    assert out.getvalue() == "ends with s3cret\n"
    print("Continue? [y/N] ", end="", flush=True)
    assert out.getvalue().endswith("[y/N] ")
    print("s3cret", end="")
    sys.stdout.release()  # type: ignore[union-attr]  # as at the end of the process
    assert out.getvalue().endswith("[y/N] s3cret")


@given(
    st.lists(st.text("abc", min_size=4, max_size=8), min_size=1, max_size=3),
    st.lists(st.text("abc\n"), max_size=20),
)
def test_pieces_never_show_more_than_the_whole(values: list[str], pieces: list[str]) -> None:
    """However a text is cut, and whatever values begin, end or are in one another."""
    redact._values.clear()
    for value in values:
        redact.add(value)
    out = io.StringIO()
    stream = redact._Stream(out)
    for piece in pieces:
        stream.write(piece)
    stream.release()
    shown = out.getvalue()
    assert not [value for value in values if value in shown]
    if not any(value in "".join(pieces) for value in values):
        assert shown == "".join(pieces)


def test_what_a_process_prints_last_without_a_newline_is_shown(tmp_path: Path) -> None:
    program = (
        "from flambe.logging import redact\n"
        "redact.add('s3cret-value'); redact.guard_streams()\n"
        "print('a line'); print('the end is s3cret', end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "a line\nthe end is s3cret"


def test_components_that_print_in_pieces_are_hidden() -> None:
    redact.add("s3cret-value")
    lines: list[str] = []
    with capture.printed_here(lambda level, text: lines.append(redact.hide(text))):
        print("it is s3c", end="", flush=True)
        print("ret-value.")
    assert lines == ["it is ***."]


# -- short values ---------------------------------------------------------------------------------


def test_values_that_are_too_short_to_be_hidden_are_named(tmp_path: Path, home: Path) -> None:
    """Of two letters: 'ab' is in many words, and hiding it would spoil all that is shown."""
    (home / "secrets.ini").write_text(
        "[API]\npin = ab\nother = 123\nempty =\ntoken = s3cret-value\n"
        "[environment]\nDEBUG = 1\n[flambe]\nfactories =\n"
    )
    (home / "secrets.ini").chmod(0o600)
    (tmp_path / "script.py").write_text("print('a cab')\n")
    (tmp_path / "a.yaml").write_text("!Script {script: script.py}\n")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path / "a.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "a cab\n")
    assert "shorter than 4 characters, so logs show them: [API] pin, [API] other\n" in done.stderr
