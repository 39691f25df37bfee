"""The page on how a run was made, without a browser."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx

from flambe.progress import RunFolder
from flambe.report import create_app

TOKEN = "a-token-of-this-test"
EVIL = "<img src=x onerror=alert(1)>"


def get(folder: Path, path: str) -> str:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(folder, token=TOKEN))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", headers=headers
        ) as client:
            return await client.get(path)

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    return answer.text


def write(folder: Path, *starts: dict[str, object]) -> None:
    lines = "".join(json.dumps(start) + "\n" for start in starts)
    RunFolder(folder).invocations.write_text(lines)


REPOSITORY = {
    "folder": "/home/me/project", "uses": ["digits.yaml", "extension ext"], "commit": "ab" * 20,
    "branch": "main", "dirty": True, "diff": "diff --git a/x b/x\n@@ -1 +1 @@\n-old\n+new\n",
}  # fmt: skip


def test_it_shows_command_configuration_code_and_packages(tmp_path: Path) -> None:
    start = {
        "id": "a1", "at": 1e9, "command": ["flambe", "digits.yaml", "train.lr=!g [1]"], "seeds": [3],
        "config": "lr: 2  # as in the paper", "resolved": "lr: 1", "overrides": ["train.lr=1"],
        "packages": {"torch": "2.6.0+cpu"}, "repositories": [REPOSITORY], "gpus": ["H200, 80 MiB"],
        "complete": True, "user": "ann", "host": "lab",
    }  # fmt: skip
    write(tmp_path, start)
    page = get(tmp_path, "/made")
    for text in (
        "flambe digits.yaml &#39;train.lr=!g [1]&#39;", "2001-09-09 01:46:40 UTC", "by ann on lab", "H200, 80 MiB",
        "# as in the paper", "As resolved", "abababababab", "on main", "with changes", "2.6.0+cpu",
        "digits.yaml, extension ext", '<span class="removed">-old', '<span class="added">+new',
    ):  # fmt: skip
        assert text in page, text
    assert 'href="/made"' in get(tmp_path, "/downloads")


def test_each_start_has_a_page_and_the_last_is_shown_first(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"id": "a1", "command": ["first"]},
        {"id": "b2", "command": ["second"], "resumed": True},
    )
    assert "second" in get(tmp_path, "/made")
    page = get(tmp_path, "/made?start=a1")
    assert ">first<" in page
    assert 'href="/made?start=b2"' in page


def test_runs_without_a_record_and_broken_ones_have_a_page(tmp_path: Path) -> None:
    assert "did not record it" in get(tmp_path, "/made")
    write(
        tmp_path,
        {
            "id": EVIL,
            "at": 1e300,
            "config": EVIL,
            "packages": {EVIL: EVIL},
            "repositories": [{"folder": EVIL, "diff": EVIL, "untracked": [EVIL], "problem": EVIL}],
        },
    )
    page = get(tmp_path, f"/made?start={EVIL}")
    assert "<img" not in page.partition("<main")[2]
