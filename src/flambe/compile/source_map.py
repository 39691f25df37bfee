"""Places of a file that was written anew on another machine: people know the one they wrote."""

from __future__ import annotations

import json
from dataclasses import replace

from flambe.compile.schema import Schema
from flambe.compile.values import walk

#: Names, where a run is started for somebody, the file that tells their places.
VARIABLE = "FLAMBE_PLACES"


def told(root: Schema) -> str:
    """Return where each blueprint below one was written, as JSON."""
    places = [
        (path, (one.place.file, one.place.line, one.place.column, one.place.width, one.place.text))
        for path, one in walk(root)
        if isinstance(one, Schema) and one.place is not None
    ]
    return json.dumps(places)


def restore(root: Schema, text: str) -> None:
    """Give blueprints the places that were told; their folder stays that of the file here."""
    known = {tuple(path): place for path, place in json.loads(text)}
    for path, one in walk(root):
        if isinstance(one, Schema) and one.place is not None and path in known:
            file, line, column, width, shown = known[path]
            one.place = replace(
                one.place, file=file, line=line, column=column, width=width, text=shown
            )
