"""What the pages are made of: unchanged, with its licence, and in the wheel."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest

from flambe.packaging.wheel import build

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "src/flambe/report"
VENDOR = REPORT / "static/vendor"


def test_foreign_files_are_those_that_were_published() -> None:
    known = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    expected = {VENDOR / "vendor.json"}
    for name, package in known.items():
        folder = VENDOR / name.rpartition("/")[2]
        assert any(file.startswith("LICENSE") for file in package["files"]), name
        for file, wanted in package["files"].items():
            path = folder / file.removeprefix("dist/")
            assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted, path
            expected.add(path)
    assert {path for path in VENDOR.rglob("*") if path.is_file()} == expected


def test_pages_ask_no_other_host() -> None:
    """Every address in them is one of the site itself."""
    for path in [
        *REPORT.rglob("*.html"),
        *(REPORT / "static/js").glob("*.js"),
        REPORT / "static/site.css",
    ]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"""(?:src|href|import|url|fetch)\s*[=(]?\s*["'(]?(?:https?:)?//""", text
        ), path


def test_each_script_and_template_is_used() -> None:
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in [
            *REPORT.rglob("*.py"),
            *REPORT.rglob("*.html"),
            *(REPORT / "static/js").glob("*.js"),
        ]
    }
    for path in [*REPORT.rglob("*.html"), *(REPORT / "static/js").glob("*.js")]:
        assert any(path.name in text for other, text in texts.items() if other != path), path


def test_the_wheel_holds_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(ROOT, tmp_path)) as wheel:
        names = set(wheel.namelist())
    wanted = {
        f"flambe/report/{path.relative_to(REPORT)}"
        for path in REPORT.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(wanted) > 45
    assert not wanted - names
