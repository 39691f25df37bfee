"""Fakes, and runs without Ray, for the tests of code that builds on flambe, and for its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.testing.fake_agent import FakeAgent
    from flambe.testing.fake_connection import FakeConnection, RecordedCommand
    from flambe.testing.inline_run import ComponentRun, run_component, run_experiment
    from flambe.testing.recording_cluster import RecordingCluster, RecordingObserver, fake_machine

__all__ = [
    "ComponentRun",
    "FakeAgent",
    "FakeConnection",
    "RecordedCommand",
    "RecordingCluster",
    "RecordingObserver",
    "fake_machine",
    "run_component",
    "run_experiment",
]

# Loaded when they are used: a test of one host needs no cluster.
__getattr__ = lazy_exports(
    __name__,
    {
        "ComponentRun": "inline_run",
        "FakeAgent": "fake_agent",
        "FakeConnection": "fake_connection",
        "RecordedCommand": "fake_connection",
        "RecordingCluster": "recording_cluster",
        "RecordingObserver": "recording_cluster",
        "fake_machine": "recording_cluster",
        "run_component": "inline_run",
        "run_experiment": "inline_run",
    },
)
