"""What an environment holds, recomputed from the files that are there."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

from flambe.remote.agent import record as record_file
from flambe.remote.agent.files import read_json
from flambe.remote.agent.message import Message, dict_of, read_text, several, text
from flambe.remote.agent.protocol import (
    EnvironmentContents,
    OwnDistribution,
    SystemDistribution,
)


@dataclass
class EnvironmentRecord(Message):
    """What its installer wrote into an environment: the distributions of ours, and its Python."""

    ours: list[str] = several(read_text)
    python: str = text()


def environment(root: str, name: str) -> EnvironmentContents | None:
    """Return the distributions of an environment, and the hash of the files of ours; or None.

    Our own wheels (flambe, the extensions) are hashed file by file; others count by their names and
    versions.
    """
    folder = os.path.join(root, "envs", name)
    content = read_json(os.path.join(folder, "flambe.json")) if name else None
    if not isinstance(content, dict):
        return None
    record = EnvironmentRecord.from_json(content)
    contents = EnvironmentContents(python=record.python)
    for path in glob.glob(os.path.join(folder, "lib", "python*", "site-packages", "*.dist-info")):
        title, version = os.path.basename(path)[: -len(".dist-info")].split("-")[:2]
        name = _canonical(title)
        contents.distributions[name] = version
        if name in record.ours:
            contents.ours[name] = distribution(path)
    return contents


def system() -> dict[str, SystemDistribution]:
    """Return the distributions of this host's own Python: name → version, and what each requires.

    What a user installed for themselves is left out: runs do not see it. ``$FLAMBE_PYTHON`` names
    another Python, in a virtual environment for example.
    """
    from importlib import metadata

    if other := os.environ.get("FLAMBE_PYTHON"):
        command = [other, "-I", sys.argv[0], "system"]
        environment = {k: v for k, v in os.environ.items() if k != "FLAMBE_PYTHON"}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return dict_of(SystemDistribution.from_json)(json.loads(done.stdout))
    distributions: dict[str, SystemDistribution] = {}
    for installed in metadata.distributions():
        name = installed.metadata["Name"]
        if name:  # the first of a name is the one that is imported
            entry = SystemDistribution(installed.version, installed.requires or [])
            distributions.setdefault(_canonical(name), entry)
    return distributions


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(info: str) -> OwnDistribution:
    """Return the hash of a distribution's files, and which of them are not what its RECORD says."""
    site = os.path.dirname(info)
    files: list[tuple[str, str]] = []
    wrong: list[str] = []
    with open(os.path.join(info, "RECORD"), newline="") as stream:
        rows = list(record_file.read_rows(stream))
    for path, recorded in rows:
        try:
            with open(os.path.join(site, path), "rb") as file:
                encoded = record_file.encode_sha256(file.read())
        except OSError:
            wrong.append(path)
            continue
        if recorded and recorded != encoded:
            wrong.append(path)
        files.append((path, encoded))
    return OwnDistribution(record_file.hash_files(files), wrong)
