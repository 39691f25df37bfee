"""What an environment holds, recomputed from the files that are there."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from typing import Any

from flambe.remote.agent import record
from flambe.remote.agent.files import read_json


def environment(root: str, name: str) -> Any:
    """Return the distributions of an environment, and the hash of the files of ours.

    Our own wheels (flambe, the extensions) are hashed file by file; others count by their names and
    versions.
    """
    folder = os.path.join(root, "envs", name)
    made = read_json(os.path.join(folder, "flambe.json")) if name else None
    if made is None:
        return None
    found: dict[str, str] = {}
    ours: dict[str, Any] = {}
    wanted = set(made.get("ours", ()))
    for path in glob.glob(os.path.join(folder, "lib", "python*", "site-packages", "*.dist-info")):
        title, version = os.path.basename(path)[: -len(".dist-info")].split("-")[:2]
        name = _canonical(title)
        found[name] = version
        if name in wanted:
            ours[name] = distribution(path)
    return {"distributions": found, "ours": ours, "python": made.get("python", "")}


def system() -> dict[str, Any]:
    """Return the distributions of this host's own Python: name → version, and what each requires.

    What a user installed for themselves is left out: runs do not see it. ``$FLAMBE_PYTHON`` names
    another Python, in a virtual environment for example.
    """
    from importlib import metadata

    if other := os.environ.get("FLAMBE_PYTHON"):
        command = [other, "-I", sys.argv[0], "system"]
        environment = {k: v for k, v in os.environ.items() if k != "FLAMBE_PYTHON"}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return dict(json.loads(done.stdout))
    found: dict[str, Any] = {}
    for one in metadata.distributions():
        name = one.metadata["Name"]
        if name:  # the first that is found is the one that is imported
            told = {"version": one.version, "requires": one.requires or []}
            found.setdefault(_canonical(name), told)
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(info: str) -> dict[str, Any]:
    """Return the hash of a distribution's files, and which of them are not what its RECORD says."""
    site = os.path.dirname(info)
    files: list[tuple[str, str]] = []
    wrong: list[str] = []
    with open(os.path.join(info, "RECORD"), newline="") as stream:
        rows = list(record.read_rows(stream))
    for path, recorded in rows:
        try:
            with open(os.path.join(site, path), "rb") as file:
                encoded = record.encode_sha256(file.read())
        except OSError:
            wrong.append(path)
            continue
        if recorded and recorded != encoded:
            wrong.append(path)
        files.append((path, encoded))
    return {"hash": record.hash_files(files), "wrong": wrong}
