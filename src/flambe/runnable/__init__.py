"""Runnables: their interfaces, the environment of a remote run, and secrets."""

from flambe.runnable.environment import RemoteEnvironment
from flambe.runnable.runnable import ClusterRunnable, Runnable
from flambe.runnable.secrets import Secret, Secrets

__all__ = ["ClusterRunnable", "RemoteEnvironment", "Runnable", "Secret", "Secrets"]
