"""Examples of the documentation, each in an experiment that it is a part of."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str = "yaml") -> list[str]:
    """Return the examples of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def merged(base: Any, example: Any) -> Any:
    """Return an example in place of what the experiment has there."""
    if not (isinstance(base, CommentedMap) and isinstance(example, CommentedMap)):
        return example
    if example.tag.value not in (None, base.tag.value):
        return example
    for key, value in example.items():
        base[key] = merged(base[key], value) if key in base else value
    return base


def combine(*examples: str) -> str:
    """Return an experiment with parts in the place of what it has there."""
    yaml = YAML()
    first, *others = map(yaml.load, examples)
    for other in others:
        first = merged(first, other)
    stream = io.StringIO()
    yaml.dump(first, stream)
    return stream.getvalue()
