"""Comparing the requirements of a script with what is installed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from flambe.errors import RunError
from flambe.packaging import own_name


def check(requirements: Sequence[str] | str, folder: Path) -> None:
    """Compare requirements with what is installed.

    Parameters
    ----------
    requirements
        As pip takes them, or the path of a file of them.
    folder
        What a relative path starts from.

    Raises
    ------
    RunError
        Naming each that is missing, or installed in another version, and the command to run.
    """
    if isinstance(requirements, str):
        path = folder / requirements
        lines: Iterable[tuple[str, str]] = _lines(path)
        command = f"pip install -r {shlex.quote(str(path))}"
    else:
        lines = [(text, "requirements") for text in requirements]
        command = f"pip install {shlex.join(requirements)}"
    problems = [problem for text, where in lines if (problem := _problem(text, where))]
    if problems:
        raise RunError(
            "the script needs what is not installed: " + "; ".join(problems) + f"\n  {command}"
        )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot read the requirements {path}: {error.strerror}") from None
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), start=1):
        content = line.partition(" #")[0].strip()
        option, _, value = content.partition(" ")
        if option in ("-r", "--requirement"):
            yield from _lines(path.parent / value.strip())
        # Other options are for pip: indices, hashes, editable installs.
        elif content and not content.startswith(("#", "-")):
            yield content.partition(" --")[0], f"{path}:{number}"


def _problem(text: str, where: str) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise RunError(f"{where}: {text!r} is not a requirement: {error}") from None
    if requirement.marker is not None and not requirement.marker.evaluate():
        return ""
    if own_name.is_flambe(requirement):
        if reason := own_name.unmet_reason(requirement):
            raise RunError(f"{where}: the script requires {reason}\n  {own_name.WHY}")
        return ""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return str(requirement)
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement} (installed: {version})"
