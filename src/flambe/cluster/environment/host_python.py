"""The packages of the hosts' own Python, where it is used as it is: what lacks, what differs."""

from __future__ import annotations

from collections.abc import Sequence

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.environment.environment import Environment
from flambe.errors import RunError
from flambe.packaging import closure


def missing(wanted: Environment, member: ClusterHost) -> dict[str, str]:
    """Return what a host lacks of what our code needs: name → what needs it."""
    there = member.report["system"]
    ours = {one.name for one in wanted.wheels}

    def requires(name: str) -> Sequence[str]:
        # The host's versions may need other packages than those that are here.
        if name in ours:
            return closure.installed_requirements(name)
        return list(there.get(name, {}).get("requires", ()))

    markers = closure.marker_environment(wanted.target.python, wanted.target.platform)
    needed = closure.required_by(wanted.roots, requires, markers)
    return {n: of for n, of in sorted(needed.items()) if n not in there and n not in ours}


def refuse(wanted: Environment, members: Sequence[ClusterHost]) -> None:
    """See that the hosts have all that is needed.

    Raises
    ------
    RunError
        If not: it names the hosts, the packages, and what needs them.
    """
    told = []
    for member in members:
        if lacking := missing(wanted, member):
            names = ", ".join(f"{name} (for {of})" for name, of in lacking.items())
            told.append(f"\n  {member.machine.name} lacks {names}")
    if told:
        raise RunError(
            "environment: system uses the hosts' own Python, which lacks what is needed"
            + "".join(told)
            + "\n  = install it there for all users, by setup_cmds for one; "
            "without system, flambe installs everything"
        )


def differing(wanted: Environment, members: Sequence[ClusterHost]) -> list[str]:
    """Return which packages have other versions on hosts than here, for people."""
    told: dict[str, list[str]] = {}
    for member in members:
        there = member.report["system"]
        for name, version in wanted.closure.versions.items():
            found = there.get(name, {}).get("version", version)
            if found.partition("+")[0] != version:
                text = f"warning: {name} is {version} here, and {found} on"
                told.setdefault(text, []).append(member.machine.name)
    return [f"{text} {', '.join(names)}" for text, names in told.items()]
