"""What a run writes down of its configuration, for the run that resumes it: ``lineage.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from flambe.compile.schema import Schema
from flambe.compile.values import ClusterResource, Grid, Link, Sample, children
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.variants.expansion import Expander
from flambe.experiment.variants.identity import canonical_text
from flambe.experiment.variants.options import is_domain
from flambe.logging import redact

LONGEST = 60  # characters of a value
OPTIONS = "several values"


@dataclass(frozen=True)
class StageRecord:
    """A stage as it was.

    Attributes
    ----------
    origin
        The name that it had when its results were begun.
    settings
        Its configuration, flat: ``optimizer.lr`` → ``0.1``. Options are not told apart.
    """

    origin: str
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LineageRecord:
    """What a run was made from, as far as it explains what the next one runs.

    Attributes
    ----------
    seed
        The seed.
    stages
        By their names.
    resources
        Name → location.
    all_resources
        See :class:`~flambe.experiment.variants.expansion.Expander`.
    """

    seed: int = 0
    stages: Mapping[str, StageRecord] = field(default_factory=dict)
    resources: Mapping[str, str] = field(default_factory=dict)
    all_resources: bool = False

    @classmethod
    def of(cls, spec: ExperimentSpec, expander: Expander) -> LineageRecord:
        """Return what is to be written down of a run."""
        return cls(
            spec.seed,
            {
                name: StageRecord(expander.origin(name), flat_settings(config))
                for name, config in spec.pipeline.items()
            },
            {name: _location(location) for name, location in spec.resources.items()},
            expander.all_resources,
        )

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def parse(cls, text: str) -> LineageRecord | None:
        """Read what :meth:`dump` wrote; None if it is something else, or of a later version."""
        try:
            values = json.loads(text)
            stages = {
                str(name): StageRecord(str(stage["origin"]), _texts(stage["settings"]))
                for name, stage in values["stages"].items()
            }
            resources = _texts(values["resources"])
            seed = values["seed"]
            whole = bool(values.get("all_resources"))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return cls(seed, stages, resources, whole) if isinstance(seed, int) else None


def _texts(values: Mapping[object, object]) -> dict[str, str]:
    return {str(key): str(value) for key, value in values.items()}


def _location(location: str | ClusterResource) -> str:
    if isinstance(location, ClusterResource):
        return redact.hide(f"!cluster {location.location}")
    return redact.hide(location)


def flat_settings(config: object, path: str = "") -> dict[str, str]:
    """Return a configuration by paths: ``optimizer.lr`` → ``0.1``, and ``optimizer`` → its tag."""
    if isinstance(config, Grid | Sample) or is_domain(config):
        return {path: OPTIONS}
    if isinstance(config, Link):
        return {path: f"!@ {config}"}
    below = list(children(config))
    if not below and not isinstance(config, Schema):
        return {path: _short(config)}
    settings = {path: f"!{config.tag}"} if isinstance(config, Schema) else {}
    for key, child in below:
        settings |= flat_settings(child, f"{path}.{key}" if path else str(key))
    return settings


def _short(value: object) -> str:
    # A value may be a secret, of !env: test_a_secret_is_in_no_file_of_a_run.
    text = redact.hide(value if isinstance(value, str) else canonical_text(value))
    if len(text) <= LONGEST:
        return text
    # Two long texts differ where their hashes do.
    return f"{text[: LONGEST - 10]}…{hashlib.sha256(text.encode()).hexdigest()[:8]}"
