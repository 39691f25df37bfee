"""The same code on every host: an environment, made once for each content, and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flambe.cluster.context import ClusterContext
from flambe.cluster.environment.interpreter import Interpreter
from flambe.cluster.environment.target import Target, refuse_compiled, target_of
from flambe.cluster.options import EnvironmentOptions
from flambe.packaging import closure as lock
from flambe.packaging import wheel


@dataclass(frozen=True)
class Environment:
    """What the hosts of a cluster are given.

    Attributes
    ----------
    wheels
        Our own code: flambe, and the extensions.
    closure
        What they need, in the versions that are installed here.
    interpreter
        The Python that it is made of.
    target
        The Python and the platform of the hosts.
    roots
        What the closure is of: requirements without versions.
    options
        ``environment`` of the cluster.
    """

    wheels: tuple[wheel.Wheel, ...]
    closure: lock.Closure
    interpreter: Interpreter
    target: Target
    roots: tuple[str, ...]
    options: EnvironmentOptions

    @classmethod
    def of(cls, cluster: ClusterContext, distributions: Sequence[str] = ()) -> Environment:
        """Return the environment for a cluster.

        Parameters
        ----------
        cluster
            The cluster, with the facts of its hosts.
        distributions
            What it has beside flambe: extensions, by the names of their distributions; and extras
            of flambe, ``flambe[learn]``.
        """
        roots = roots_of(cluster.environment, distributions)
        wheels = tuple(wheel.wheel_of(Requirement(root).name) for root in roots)
        interpreter = Interpreter.of(cluster.environment, cluster.hosts)
        target = target_of(cluster.hosts, interpreter.version)
        refuse_compiled(wheels, target)
        return cls(
            wheels,
            lock.compute_closure(roots),
            interpreter,
            target,
            tuple(roots),
            cluster.environment,
        )

    @property
    def name(self) -> str:
        """The name of its folder: a hash of all that decides what is in it."""
        value = [
            [(w.name, w.content) for w in self.wheels],
            sorted(self.closure.versions.items()),
            self.closure.requirements,
            self.target.python,
            self.target.platform,
            *(["system"] if self.system else []),
            *([self.interpreter.key] if self.interpreter.key else []),
        ]
        return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]

    @property
    def system(self) -> bool:
        """Whether the hosts' own Python has what our code needs."""
        return self.options.system

    def differences(self, found: Mapping[str, Any] | None) -> list[str]:
        """Return how what a host has differs from this, as recomputed from its files."""
        if found is None:
            return ["it is not there"]
        told = []
        for one in self.wheels:
            installed = found["ours"].get(one.name)
            if installed is None:
                told.append(f"{one.name} is not installed")
            elif installed["wrong"]:
                told.append(f"{one.name}: {installed['wrong'][0]} was altered")
            elif installed["hash"] != one.content:
                told.append(f"{one.name} is not the code that is here")
        versions = {} if self.system else self.closure.versions
        for name, version in versions.items():
            there = found["distributions"].get(canonicalize_name(name), version)
            if there.partition("+")[0] != version:
                told.append(f"{name} is {there}, and {version} here")
        return told


def roots_of(options: EnvironmentOptions, distributions: Sequence[str]) -> list[str]:
    """Return the requirements of an environment: flambe with all extras, and the extensions."""
    named = [Requirement(name) for name in distributions]
    extras = {extra for one in named if one.name == "flambe" for extra in one.extras}
    extras |= set(options.extras)
    told = f"[{','.join(sorted(extras))}]" if extras else ""
    return [f"flambe{told}", *(one.name for one in named if one.name != "flambe")]
