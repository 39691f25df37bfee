"""flambe: experiments described in YAML that run on a laptop and, unchanged, on a cluster.

Importing the package costs nothing: its names are loaded when they are used.
"""

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports
from flambe._version import __version__

if TYPE_CHECKING:
    from flambe.compile import Component, Schema
    from flambe.compile.persistence import load, save
    from flambe.compile.state.pickled import trust
    from flambe.experiment import Experiment
    from flambe.experiment.interactive.run_handle import RunHandle, runs
    from flambe.experiment.load_config import load_config
    from flambe.logging import log

__all__ = [
    "Component",
    "Experiment",
    "RunHandle",
    "Schema",
    "__version__",
    "load",
    "load_config",
    "log",
    "runs",
    "save",
    "trust",
]


__getattr__ = lazy_exports(
    __name__,
    {
        "Component": "compile",
        "Experiment": "experiment",
        "RunHandle": "experiment.interactive.run_handle",
        "Schema": "compile",
        "load": "compile.persistence",
        "load_config": "experiment.load_config",
        "log": "logging",
        "runs": "experiment.interactive.run_handle",
        "save": "compile.persistence",
        "trust": "compile.state.pickled",
    },
)
