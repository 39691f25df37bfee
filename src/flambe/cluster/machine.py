"""A machine of a cluster: how to log in to it, and nothing else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flambe._grammar import as_list, wrong_ascii_name, wrong_user
from flambe.errors import RunError
from flambe.remote import Address

ORCHESTRATOR = "orchestrator"
NAME = "name"  # a mark of each host: its name in the cluster
_FACTORY = re.compile(r"factory_([1-9][0-9]{0,5})\Z")


@dataclass(frozen=True)
class Machine:
    """A machine, as a kind of cluster finds or creates it.

    Attributes
    ----------
    name
        ``orchestrator``, ``factory_1``, ``factory_2`` …
    address
        Where it is reached from outside.
    private
        Where the other machines of the cluster reach it.
    user
        Who logs in.
    key
        The user's private key; None leaves it to ssh.
    new
        It was just created: it may take a while until it accepts SSH logins.
    host_keys
        Its public host keys, where the kind of cluster has them; else they are read on the host.
    identity
        What identifies the machine whatever its address is: the id of an instance. By default,
        its host keys do.
    """

    name: str
    address: Address
    private: Address
    user: str
    key: Path | None = None
    new: bool = False
    host_keys: tuple[str, ...] = ()
    identity: str = ""

    def __post_init__(self) -> None:
        as_list(self.host_keys, "host_keys takes a list of keys")


def is_factory(name: object) -> bool:
    """Whether this can be the name of a factory; hosts report it, and files contain it."""
    return isinstance(name, str) and _FACTORY.match(name) is not None


def order(name: str) -> tuple[int, str]:
    """Return the key that sorts hosts by their names: the orchestrator first, 10 after 9."""
    match = _FACTORY.match(name)
    return (int(match[1]) if match else 0, name)


# The types of the fields; those that may be left out may be None.
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "address": (Address,),
    "private": (Address,),
    "user": (str,),
    "key": (Path, type(None)),
    "new": (bool,),
    "host_keys": (tuple, list),
    "identity": (str,),
}


def check_machines(provider: object, machines: Sequence[object]) -> None:
    """Check that a kind of cluster returned machines that can be used.

    Raises
    ------
    RunError
        If it did not: the error names the class, its file, and the problem.
    """
    problems = [text for n, machine in enumerate(machines) for text in _problems(n, machine)]
    names = [machine.name for machine in machines if isinstance(machine, Machine)]
    if not machines:
        problems.append("it returned no machines: an orchestrator is needed")
    elif not problems and names[0] != ORCHESTRATOR:
        problems.append(
            f"the first machine is named {names[0]!r}: the orchestrator comes first, and has "
            f"the name {ORCHESTRATOR!r}"
        )
    elif not problems and len(set(names)) < len(names):
        problems.append("two machines have the same name")
    if problems:
        kind = type(provider)
        file, line = inspect.getsourcefile(kind), inspect.getsourcelines(kind)[1]
        raise RunError(
            f"{kind.__name__}.create_machines: {problems[0]}\n  the class is in {file}, line "
            f"{line}; see: help(flambe.cluster.Machine)"
        )


def _problems(number: int, machine: object) -> list[str]:
    """Return what is wrong with one of the machines."""
    if not isinstance(machine, Machine):
        return [f"number {number} is {machine!r}, not a Machine"]
    problems = [f"number {number}: {problem}" for problem in _unsafe_texts(machine) if problem]
    for name, kinds in _FIELDS.items():
        value = getattr(machine, name)
        if not isinstance(value, kinds):
            expected = " or ".join(kind.__name__.replace("NoneType", "None") for kind in kinds)
            problems.append(f"{name} of number {number} is {value!r}, expected {expected}")
    return problems


def _unsafe_texts(machine: Machine) -> list[str]:
    """Return what is wrong with the texts that go into the configuration of ssh on the hosts."""
    texts = ((machine.name, wrong_ascii_name), (machine.user, wrong_user))
    return [check(text) for text, check in texts if isinstance(text, str)]
