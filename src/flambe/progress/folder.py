"""The folder of a run: every path in it, and its state, which is read and written whole."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from flambe._files import replacing
from flambe.progress.lines import open_regular, read_lines
from flambe.progress.state import (
    RunState,
    VariantState,
    finite,
    read_state_text,
    variants_of,
)

LARGEST_STATE = 64 << 20  # bytes: a larger state.json is broken
# The names in the folder of a variant.
VARIANT_CONFIG = "config.yaml"
VARIANT_LOG = "variant.log"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class RunFolder:
    """Every path of a run on disk, named once."""

    root: Path

    @property
    def state(self) -> Path:
        """The state of the run."""
        return self.root / "state.json"

    @property
    def previous_state(self) -> Path:
        """The state before the latest."""
        return self.root / "state.previous.json"

    @property
    def reserve(self) -> Path:
        """Room for the last state, on a disk that becomes full."""
        return self.root / ".reserve"

    @property
    def variants(self) -> Path:
        """The journal of the variants."""
        return self.root / "variants.jsonl"

    @property
    def invocations(self) -> Path:
        """How the run was made: a line or two for each time that it was started."""
        return self.root / "invocations.jsonl"

    @property
    def log(self) -> Path:
        """All that was printed and logged."""
        return self.root / "run.log"

    @property
    def hosts(self) -> Path:
        """How busy each host was."""
        return self.root / "hosts.jsonl"

    @property
    def config(self) -> Path:
        """The configuration as it was given."""
        return self.root / "experiment.yaml"

    @property
    def lineage(self) -> Path:
        """What explains to the next run what has changed."""
        return self.root / "lineage.json"

    @property
    def identity(self) -> Path:
        """What tells this folder from one of the same name on another host."""
        return self.root / "run.id"

    @property
    def resources(self) -> Path:
        """What was fetched."""
        return self.root / "resources"

    def variant(self, stage: str, name: str) -> Path:
        """Return the folder of a variant."""
        return self.root / stage / name

    def checkpoint(self, stage: str, name: str) -> Path:
        """Return the final checkpoint of a variant."""
        return self.variant(stage, name) / "checkpoint" / "checkpoint.flambe"

    def aside(self) -> Path:
        """Return a path beside it that is not taken: results are moved there."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = self.root.with_name(f"{self.root.name}.{stamp}")
        number = 1
        while aside.exists():
            aside = self.root.with_name(f"{self.root.name}.{stamp}-{number}")
            number += 1
        return aside

    # -- state --------------------------------------------------------------------------------

    def write_state(self, state: RunState) -> None:
        """Write the state as a whole; the one before it is kept, too."""
        state.updated = time.time()
        text = json.dumps(finite(asdict(state)), indent=1)
        with replacing(self.state) as part:
            part.write_text(text, encoding="utf-8")
            if self.state.exists():
                os.replace(self.state, self.previous_state)

    def read_state(self) -> RunState | None:
        """Return the last good state, or None if there is none."""
        for path in (self.state, self.previous_state):
            try:
                with open_regular(path) as stream:
                    return read_state_text(stream.read(LARGEST_STATE).decode("utf-8"))
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                continue
        return None

    def read_variants(self) -> dict[str, VariantState]:
        """Return the variants by id, in the order in which they were first named."""
        return variants_of(read_lines(self.variants))
