"""Compare a saved component with the manifest of the checkpoint that it is in, if it is in one.

An experiment writes the manifest beside the component, with the size and the digest of each file.
"""

from __future__ import annotations

import os
from pathlib import Path

from flambe._files import read_regular
from flambe.compile.state.file_writer import digest_of
from flambe.compile.state.pickled import CODE_SUFFIX
from flambe.errors import StateError
from flambe.progress.lines import parse_json

#: The folder of the component in a checkpoint, and the manifest beside it.
COMPONENT, MANIFEST = "checkpoint.flambe", "manifest.json"
LARGEST = 64 << 20  # bytes of a manifest


def compare_with_manifest(folder: str) -> None:
    """Check that a saved component is what was written, if a manifest is beside it.

    Parameters
    ----------
    folder
        The folder of a component: that of a checkpoint, or one inside.

    Raises
    ------
    StateError
        If it is not: the file is named. Without a manifest, nothing is compared.
    """
    absolute = Path(os.path.abspath(folder))
    top = next((p for p in (absolute, *absolute.parents) if p.name == COMPONENT), None)
    if top is None or not (top.parent / MANIFEST).is_file():
        return
    try:
        values = parse_json(read_regular(top.parent / MANIFEST, LARGEST).decode())
        sizes = dict(values["files"]) if isinstance(values, dict) else {}
        digests = dict(values.get("digests", {})) if isinstance(values, dict) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # it is of something else
    for name, size in sizes.items():
        path = Path(os.path.normpath(top.parent / str(name)))
        if path.is_relative_to(absolute):
            digest = "" if path.name.endswith(CODE_SUFFIX) else str(digests.get(name, ""))
            _compare(path, size, digest)


def _compare(path: Path, size: object, digest: str) -> None:
    try:
        actual_size, actual = path.stat().st_size, digest
        if actual_size == size and digest:
            with open(path, "rb") as stream:
                actual = digest_of(stream, digest.partition(":")[0]).digest
    except FileNotFoundError:
        raise StateError(f"the checkpoint is damaged: {path} is missing") from None
    except ValueError:
        return  # a digest that a later version writes
    if actual_size != size:
        raise StateError(
            f"the checkpoint is damaged: {path} has {actual_size:,} bytes instead of {size}"
        )
    if actual != digest:
        text = "is not what was written (its SHA-256 differs)"
        raise StateError(f"the checkpoint is damaged: {path} {text}")
