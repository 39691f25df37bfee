"""The packages of the hosts' own Python, which ``system: true`` uses."""

from __future__ import annotations

from collections.abc import Sequence

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.environment.environment import Environment
from flambe.errors import RunError
from flambe.packaging import closure


def missing_packages(environment: Environment, host: ClusterHost) -> dict[str, str]:
    """Return the packages that a host lacks: name → the package that requires it."""
    packages = host.report.system
    own = {wheel.name for wheel in environment.wheels}

    def requirements(name: str) -> Sequence[str]:
        # The host's versions may require other packages than those that are here.
        if name in own:
            return closure.installed_requirements(name)
        return packages[name].requires if name in packages else []

    markers = closure.marker_environment(environment.target.python, environment.target.platform)
    required = closure.required_by(environment.roots, requirements, markers)
    return {n: of for n, of in sorted(required.items()) if n not in packages and n not in own}


def refuse_missing(environment: Environment, hosts: Sequence[ClusterHost]) -> None:
    """Check that the hosts have all packages that are required.

    Raises
    ------
    RunError
        If one does not: the error names the hosts, the packages, and what requires them.
    """
    problems = []
    for host in hosts:
        if missing := missing_packages(environment, host):
            names = ", ".join(f"{name} (for {of})" for name, of in missing.items())
            problems.append(f"\n  {host.machine.name} lacks {names}")
    if problems:
        raise RunError(
            "environment: system uses the hosts' own Python, which lacks required packages"
            + "".join(problems)
            + "\n  = install them there for all users, for example by setup_cmds; "
            "without system, flambe installs everything"
        )


def version_warnings(environment: Environment, hosts: Sequence[ClusterHost]) -> list[str]:
    """Return a warning for each package of which hosts have another version than this machine."""
    hosts_by_warning: dict[str, list[str]] = {}
    for host in hosts:
        packages = host.report.system
        for name, version in environment.closure.versions.items():
            installed = packages[name].version if name in packages else version
            if installed.partition("+")[0] != version:
                warning = f"warning: {name} is {version} here, and {installed} on"
                hosts_by_warning.setdefault(warning, []).append(host.machine.name)
    return [f"{warning} {', '.join(names)}" for warning, names in hosts_by_warning.items()]
