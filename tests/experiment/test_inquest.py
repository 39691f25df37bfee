"""The cases of ``inquest_cases.py``, each in a process of its own.

What Ray keeps in a process of an earlier one (whether there is a token, for one) ends the actors of a
cluster of several nodes before they have begun.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("inquest_cases.py")
NAMES = [
    "test_a_host_that_does_not_answer_is_asked_once",
    "test_a_process_that_ends_just_before_its_host_did_not_fail",
]

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.long]


def test_all_cases_are_named() -> None:
    text = CASES.read_text(encoding="utf-8")
    assert text.count("\ndef test_") == len(NAMES)
    assert all(f"\ndef {name}(" in text for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_case(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", f"{CASES}::{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
