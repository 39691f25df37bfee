"""Experiments: variants, the stage graph, trials, checkpoints."""

from flambe.experiment.experiment import Experiment

__all__ = ["Experiment"]
