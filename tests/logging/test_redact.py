"""Secrets are hidden wherever text leaves."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from flambe.logging import console, redact


def test_the_longer_of_two_values_is_hidden_whole() -> None:
    """Whatever the order in which a set gives them."""
    for number in range(30):
        redact._values.clear()
        redact.add(f"token{number}")
        redact.add(f"token{number}-and-{number}-more")
        assert redact.hide(f"it is token{number}-and-{number}-more.") == "it is ***."


def test_each_line_of_a_value_is_hidden() -> None:
    redact.add("-----BEGIN-----\nMIIEvQIBADANBg\n-----END-----")
    for line in ("-----BEGIN-----", "MIIEvQIBADANBg"):
        assert redact.hide(f"> {line}") == "> ***"


def test_short_values_do_not_blot_out_words() -> None:
    redact.add("a")
    assert redact.hide("a banana") == "a banana"


def test_streams_hide_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    redact.add("s3cret-value")
    redact.guard_streams()
    redact.guard_streams()
    print("one s3cret-value")
    sys.stdout.writelines(["two s3cret-value\n", "three\n"])
    print("four", file=sys.stdout, flush=True)
    assert out.getvalue() == "one ***\ntwo ***\nthree\nfour\n"
    assert not isinstance(out, type(sys.stdout))


def test_tracebacks_in_the_log_file_hide_them() -> None:
    redact.add("s3cret-value")
    console.setup()
    log = logging.getLogger("flambe.test")
    try:
        raise ValueError("it is s3cret-value")
    except ValueError:
        log.debug("failed with %s", "s3cret-value", exc_info=True)
    text = (console.home() / "logs" / "log.log").read_text()
    assert "failed with ***" in text
    assert "ValueError: it is ***" in text
    assert "s3cret" not in text


def test_the_log_files_rotate() -> None:
    console.setup()
    log = logging.getLogger("flambe.test")
    for number in range(3):
        log.debug("%d%s", number, "x" * 1_500_000)
    folder = console.home() / "logs"
    assert sorted(p.name for p in folder.iterdir()) == ["log.log", "log.log.1", "log.log.2"]


def test_the_console_shows_info_and_everything_if_verbose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verbose in (False, True):
        console.setup(verbose=verbose)
        logging.getLogger("flambe.x").debug("a detail")
        logging.getLogger("flambe.x").info("a fact")
        logging.getLogger("elsewhere").info("their fact")
        logging.getLogger("elsewhere").warning("their trouble")
        shown = capsys.readouterr().err.splitlines()
        expected = ["a fact", "warning: their trouble"]
        if verbose:
            expected = ["a detail", "a fact", "their fact", "warning: their trouble"]
        assert shown == expected
