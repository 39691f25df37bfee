"""What is wrong with an experiment that keywords and types do not tell: options, links, names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from flambe._grammar import wrong_path
from flambe.compile import Schema
from flambe.compile.annotation_checks import kind_of
from flambe.compile.values import ClusterResource, Grid, Link, Path, Sample, children
from flambe.experiment.variants.options import is_domain

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)  # as os.path.expandvars has it

Finding = tuple[Path, str, str]  # path, message, hint


def wrong_save_path(save_path: str) -> str:
    """Return what is wrong with where results are to be written."""
    if what := wrong_path(save_path):
        return what
    unset = [a or b for a, b in _VARIABLE.findall(save_path) if (a or b) not in os.environ]
    if unset:
        return f"the variable {unset[0]} is not set"
    if os.path.expanduser(save_path).startswith("~"):
        return f"there is no user {save_path.partition('/')[0][1:]!r}"
    return ""


def resource_findings(resources: Mapping[Any, Any], folder: str) -> Iterator[Finding]:
    """Yield which local resources are not there.

    Parameters
    ----------
    resources
        Name → location.
    folder
        The folder of the configuration.
    """
    for name, location in resources.items():
        if not isinstance(location, str) or not location or "://" in location:
            continue
        path = FilePath(folder, os.path.expanduser(location))
        try:
            missing = not path.exists()
        except (OSError, ValueError):  # too long, say: told elsewhere
            continue
        if missing:
            what = f"resource {name!r}: there is no {path}"
            yield ("resources", name), what, "relative paths start at the folder of the file"


def option_findings(pipeline: Mapping[str, Any], search: Mapping[Any, Any]) -> Iterator[Finding]:
    """Yield which options stand where they are not resolved."""
    for stage, value in pipeline.items():
        said = search.get(stage)
        searcher = said.get("searcher") if isinstance(said, Mapping) else said
        yield from _misplaced(value, ("pipeline", stage), searched=searcher is not None)


def _misplaced(
    value: Any, path: Path, *, searched: bool, space: Schema | None = None, option: bool = False
) -> Iterator[Finding]:
    if space is not None and isinstance(value, Schema | Link | Grid | Sample | ClusterResource):
        yield path, f"!{space.tag} draws plain values, not {_kind(value)}", _instead(value)
        return
    if is_domain(value):
        if option and searched:
            what = f"!{value.tag} stands in an option (!g), where a searcher does not reach it"
            yield path, what, "leave out the searcher, and its values are drawn; or leave out !g"
        space = value
    inside = option or isinstance(value, Grid)
    for key, child in children(value):
        below = (*path, key)
        yield from _misplaced(child, below, searched=searched, space=space, option=inside)


def _kind(value: Any) -> str:
    if isinstance(value, Grid | Sample):
        return "options (!g)" if isinstance(value, Grid) else "options (!s)"
    return f"a link (!@ {value})" if isinstance(value, Link) else kind_of(value)


def _instead(value: Any) -> str:
    if isinstance(value, Grid | Sample):
        return "write its values themselves"
    if is_domain(value):
        return "a search space is the value of a keyword, or stands in a list or mapping"
    return "to try components, links or resources, list them in a grid:   !g [a, b]"
