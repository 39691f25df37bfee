"""What the driver and the workers tell each other about a trial: its configuration, its results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypedDict

#: The namespace of flambe's actors in Ray.
NAMESPACE = "flambe"
#: Keys of a configuration that the driver adds once Tune has made the trial.
REPETITION: Final = "repetition"
ATTEMPT: Final = "attempt"
#: The key of the id of a variant of an earlier run that a searcher continues.
RECORDED: Final = "recorded"
#: The key of the values that a member of a population has now: path of a search space → value.
EXPLORED: Final = "explored"
#: The key of how often it took the state of another member.
COPIES: Final = "copies"


class _SearchSpace(TypedDict):
    """The values that Tune chooses, and those that are the same for all trials of a stage."""

    stage: str
    collector: str
    devices: Mapping[str, float]
    variant: str


class TrialConfig(_SearchSpace, total=False):
    """The configuration of a trial.

    Attributes
    ----------
    stage
        The stage.
    collector
        The name of the collector of the run.
    devices
        What the trial occupies.
    variant
        The id of the variant; of a search, the id of the variant that the values are for.
    values
        What a searcher proposed: the path of each search space as text → its value.
    repetition
        How often the searcher had proposed the same values before.
    attempt
        The number of the attempt at the variant, counted by the driver.
    recorded
        The id of the variant of an earlier run that the trial continues.
    explored, copies
        Of a member of a population: the values that it has now, and how often it took the state of
        another. The values are in the configuration under their paths too, where Tune changes them.
    """

    values: Mapping[str, object]
    repetition: int
    attempt: int
    recorded: str
    explored: Mapping[str, object]
    copies: int


class TrialResult(TypedDict, total=False):
    """What a worker reports after a step; Tune adds results of its own.

    Attributes
    ----------
    steps
        The number of steps so far: ``flambe.experiment.search.engines.STEPS``.
    metric
        What ``metric()`` returned, if it is defined: ``METRIC`` of the same module.
    at_end
        Whether the variant has finished. Tune's own ``done`` is also set when a scheduler stops a
        trial.
    flambe_host
        The host.
    done
        Tells Tune to end the trial.
    time_total_s
        How long its steps took, as Tune adds it.
    """

    steps: int
    metric: float
    at_end: bool
    flambe_host: str
    done: bool
    time_total_s: float
