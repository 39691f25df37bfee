"""What the preparation of a cluster hands to the run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunSetup:
    """What :meth:`~flambe.runnable.ClusterRunnable.setup` made for the run.

    Attributes
    ----------
    variables
        Environment variables of the run.
    cleanup_commands
        Commands that run on the orchestrator when the run has ended, however it ended.
    resources
        Name → path of what was brought to every host; ``env.resources`` of the run.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    cleanup_commands: Sequence[Sequence[str]] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
