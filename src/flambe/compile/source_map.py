"""Positions in a file that is written again on another machine: people know the one they wrote."""

from __future__ import annotations

import json
from dataclasses import replace

from flambe.compile.schema import Schema
from flambe.compile.values import walk

#: Names, for a run that is started on another machine, the file of its source map.
VARIABLE = "FLAMBE_PLACES"


def source_map(root: Schema) -> str:
    """Return where each blueprint below one was written, as JSON."""
    positions = [
        (path, (at.file, at.line, at.column, at.width, at.text))
        for path, schema in walk(root)
        if isinstance(schema, Schema) and (at := schema.place) is not None
    ]
    return json.dumps(positions)


def restore(root: Schema, text: str) -> None:
    """Give blueprints the positions of a source map; their folder stays that of the file here."""
    positions = {tuple(path): position for path, position in json.loads(text)}
    for path, schema in walk(root):
        if isinstance(schema, Schema) and schema.place is not None and path in positions:
            file, line, column, width, line_text = positions[path]
            schema.place = replace(
                schema.place, file=file, line=line, column=column, width=width, text=line_text
            )
