"""The language of filters: the same in Python and in the browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from flambe.progress import Status, VariantState
from flambe.progress.filters import parse, plain_text, row_values, short_text, unknown_columns
from flambe.progress.records import VariantRow

CASES = Path(__file__).parent / "cases" / "filters.json"
SCRIPTS = Path(__file__).parents[1] / "src/flambe/report/static/js"
IN_NODE = """
import { test } from "FILTER";
import { readFileSync } from "node:fs";
const { rows, cases } = JSON.parse(readFileSync("CASES"));
const fixed = [["best"], ["metric", "last"], ["step", "steps"], ["time"], ["host"],
    ["state", "state", "status"], ["error"]];
const columns = ["lr", "opt", "deep"].map((key) => ({ key, title: key, value: (row) => row.choices[key] }));
for (const [key, title, field] of fixed)
    columns.push({ key, title: title ?? key, value: (row) => row[field ?? key] });
console.log(JSON.stringify(cases.map(([filter]) => {
    const tests = filter.trim().split(/\\s+/).filter(Boolean).map((term) => test(term, columns));
    return rows.filter((row) => tests.every((each) => each(row))).map((row) => row.id);
})));
"""


def rows() -> list[VariantRow]:
    found = []
    for row in json.loads(CASES.read_text())["rows"]:
        variant = VariantState(
            row["id"], "train", row["id"], Status(row["status"]), row["choices"],
            metric=row["metric"], best=row["best"], step=row["step"], host=row["host"],
            error=row["error"], kept=row["kept"], stale=row["stale"],
        )  # fmt: skip
        found.append(VariantRow(variant, Path("x"), row["time"]))
    return found


def cases() -> list[tuple[str, list[str]]]:
    return [(text, ids) for text, ids in json.loads(CASES.read_text())["cases"]]


@pytest.mark.parametrize(("text", "ids"), cases())
def test_in_python(text: str, ids: list[str]) -> None:
    names = list(dict.fromkeys(name for row in rows() for name in row_values(row)))
    matches = parse(text, names)
    assert [row.variant.id for row in rows() if matches(row)] == ids


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_in_a_browsers_language(tmp_path: Path) -> None:
    script = tmp_path / "run.mjs"
    text = IN_NODE.replace("FILTER", str(SCRIPTS / "filter.js")).replace("CASES", str(CASES))
    # Node takes the scripts of pages for modules where a package.json says so.
    (tmp_path / "js").mkdir()
    for name in ("filter.js", "number.js"):
        shutil.copy(SCRIPTS / name, tmp_path / "js" / name)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    script.write_text(text.replace(str(SCRIPTS), str(tmp_path / "js")))
    done = subprocess.run(
        ["node", str(script)], capture_output=True, text=True, timeout=60, check=True
    )
    for (filter_text, ids), result in zip(cases(), json.loads(done.stdout), strict=True):
        assert result == ids, filter_text


def test_names_that_no_column_has() -> None:
    assert unknown_columns("lrr=1 adam best>2 last<3", ["lr", "best"]) == ["lrr"]


@pytest.mark.parametrize(
    ("value", "plain", "short"),
    [
        (0.1 + 0.2, "0.30000000000000004", "0.3"), (1e-5, "0.00001", "1e-5"), (2.0, "2", "2"),
        (1.5e-7, "1.5e-7", "1.5e-7"), (123456.789, "123456.789", "123460"), (True, "true", "true"),
        (None, "", ""), (float("nan"), "nan", "nan"), (10**25, str(10**25), str(10**25)),
        (0.00012345678, "0.00012345678", "0.00012346"), ("Adam", "Adam", "Adam"),
    ],
)  # fmt: skip
def test_values_as_text(value: object, plain: str, short: str) -> None:
    assert (plain_text(value), short_text(value)) == (plain, short)
