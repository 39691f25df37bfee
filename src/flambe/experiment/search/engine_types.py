"""The classes of Ray's searchers and schedulers, by name: Ray is not imported to compare them."""

from __future__ import annotations

import inspect

#: The class of searchers that learn, of those that engines derive from.
SEARCHER = "ray.tune.search.searcher:Searcher"
SEARCH_ALGORITHM = "ray.tune.search.search_algorithm:SearchAlgorithm"
AX = "ray.tune.search.ax.ax_search:AxSearch"
BOHB = "ray.tune.search.bohb.bohb_search:TuneBOHB"
HEBO = "ray.tune.search.hebo.hebo_search:HEBOSearch"
HYPEROPT = "ray.tune.search.hyperopt.hyperopt_search:HyperOptSearch"
NEVERGRAD = "ray.tune.search.nevergrad.nevergrad_search:NevergradSearch"
ZOOPT = "ray.tune.search.zoopt.zoopt_search:ZOOptSearch"
#: These have a keyword max_concurrent.
LIMITING = (
    "ray.tune.search.concurrency_limiter:ConcurrencyLimiter",
    "ray.tune.search.basic_variant:BasicVariantGenerator",
)

SCHEDULER = "ray.tune.schedulers.trial_scheduler:TrialScheduler"
HYPERBAND_FOR_BOHB = "ray.tune.schedulers.hb_bohb:HyperBandForBOHB"
PBT = "ray.tune.schedulers.pbt:PopulationBasedTraining"
PB2 = "ray.tune.schedulers.pb2:PB2"
REPLAY = "ray.tune.schedulers.pbt:PopulationBasedTrainingReplay"


def derives_from(target: object, *bases: str) -> bool:
    """Whether a class is one of those that are named, or derives from one."""
    if not inspect.isclass(target):
        return False
    names = {f"{cls.__module__}:{cls.__qualname__}" for cls in inspect.getmro(target)}
    return not names.isdisjoint(bases)
