"""The environment of a cluster's hosts: the same code everywhere, identified by its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flambe.cluster.context import ClusterContext
from flambe.cluster.environment.interpreter import Interpreter
from flambe.cluster.environment.target import Target, refuse_compiled, target_of
from flambe.cluster.options import EnvironmentOptions
from flambe.packaging import wheel
from flambe.packaging.closure import Closure, compute_closure
from flambe.remote.agent.protocol import EnvironmentContents


@dataclass(frozen=True)
class Environment:
    """The packages and the interpreter that the hosts of a cluster run.

    Attributes
    ----------
    wheels
        The code that is shipped: flambe, and the extensions.
    closure
        The dependencies of these, in the versions that are installed here.
    interpreter
        The Python of the environment.
    target
        The Python and the platform of the hosts.
    roots
        The requirements that the closure is computed from, without versions.
    options
        ``environment`` in the file of the cluster.
    """

    wheels: tuple[wheel.Wheel, ...]
    closure: Closure
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
            What it has in addition to flambe: extensions, by the names of their distributions, and
            extras of flambe, ``flambe[learn]``.
        """
        roots = roots_of(cluster.environment, distributions)
        wheels = tuple(wheel.wheel_of(Requirement(root).name) for root in roots)
        interpreter = Interpreter.of(cluster.environment, cluster.hosts)
        target = target_of(cluster.hosts, interpreter.version)
        refuse_compiled(wheels, target)
        return cls(
            wheels,
            compute_closure(roots),
            interpreter,
            target,
            tuple(roots),
            cluster.environment,
        )

    @property
    def name(self) -> str:
        """The name of its folder: a hash of everything that determines its content."""
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
        """Whether the dependencies are those of the hosts' own Python."""
        return self.options.system

    def differences(self, contents: EnvironmentContents | None) -> list[str]:
        """Return how the contents of a host's environment differ, as recomputed from its files."""
        if contents is None:
            return ["it does not exist"]
        differences = []
        for own in self.wheels:
            installed = contents.ours.get(own.name)
            if installed is None:
                differences.append(f"{own.name} is not installed")
            elif installed.wrong:
                differences.append(f"{own.name}: {installed.wrong[0]} was altered")
            elif installed.hash != own.content:
                differences.append(f"{own.name} is not the code of this machine")
        versions = {} if self.system else self.closure.versions
        for name, version in versions.items():
            installed_version = contents.distributions.get(canonicalize_name(name), version)
            if installed_version.partition("+")[0] != version:
                differences.append(f"{name} is {installed_version}, and {version} here")
        return differences


def roots_of(options: EnvironmentOptions, distributions: Sequence[str]) -> list[str]:
    """Return the requirements of an environment: flambe with all extras, and the extensions."""
    requirements = [Requirement(name) for name in distributions]
    extras = {extra for req in requirements if req.name == "flambe" for extra in req.extras}
    extras |= set(options.extras)
    suffix = f"[{','.join(sorted(extras))}]" if extras else ""
    return [f"flambe{suffix}", *(req.name for req in requirements if req.name != "flambe")]
