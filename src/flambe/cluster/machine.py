"""A machine of a cluster, before anything is known of it but how to log in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambe._grammar import as_list, wrong_ascii_name, wrong_user
from flambe.errors import RunError
from flambe.remote import Address

ORCHESTRATOR = "orchestrator"
NAME = "name"  # a mark of each host: its name in the cluster
_FACTORY = re.compile(r"factory_([1-9][0-9]{0,5})\Z")


@dataclass(frozen=True)
class Machine:
    """One machine, as a kind of cluster finds or creates it.

    Attributes
    ----------
    name
        ``orchestrator``, ``factory_1``, ``factory_2`` …
    address
        Where it answers from outside.
    private
        Where the other machines of the cluster reach it.
    user
        Who logs in.
    key
        The user's private key; None leaves it to ssh.
    new
        It was created just now: it may take a while until it lets anybody in.
    host_keys
        Its public host keys, where the kind of cluster knows them; else the host is asked.
    identity
        What tells the machine from all others whatever its address is: the id of an instance. By
        default, its host keys do.
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
    """Whether this can be the name of a factory; hosts tell it, and it becomes a line of files."""
    return isinstance(name, str) and _FACTORY.match(name) is not None


def order(name: str) -> tuple[int, str]:
    """Return the key that sorts hosts by their names: the orchestrator first, 10 after 9."""
    match = _FACTORY.match(name)
    return (int(match[1]) if match else 0, name)


# The types of the fields; what may be left out may be None.
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


def check_machines(cluster: Any, machines: Sequence[Any]) -> None:
    """See that a kind of cluster returned machines that can be used.

    Raises
    ------
    RunError
        If not: it names the class, its file, and what is wrong.
    """
    told = [text for number, one in enumerate(machines) for text in _wrong(number, one)]
    names = [getattr(one, "name", None) for one in machines]
    if not machines:
        told.append("it returned no machines: an orchestrator is needed")
    elif not told and names[0] != ORCHESTRATOR:
        told.append(
            f"the first one is {names[0]!r}: the orchestrator comes first, and is called so"
        )
    elif not told and len(set(names)) < len(names):
        told.append("two of them have the same name")
    if told:
        kind = type(cluster)
        file, line = inspect.getsourcefile(kind), inspect.getsourcelines(kind)[1]
        raise RunError(
            f"{kind.__name__}.create_machines: {told[0]}\n  the class is in {file}, line {line}; "
            "see: help(flambe.cluster.Machine)"
        )


def _unfit(machine: Machine) -> list[str]:
    """Return what is wrong with the texts that ssh's configuration on the hosts is made of."""
    texts = ((machine.name, wrong_ascii_name), (machine.user, wrong_user))
    return [check(text) for text, check in texts if isinstance(text, str)]


def _wrong(number: int, one: Any) -> list[str]:
    if not isinstance(one, Machine):
        return [f"number {number} is {one!r}, and no Machine"]
    told = [f"of number {number}: {what}" for what in _unfit(one) if what]
    for name, kinds in _FIELDS.items():
        value = getattr(one, name)
        if not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__.replace("NoneType", "None") for kind in kinds)
            told.append(f"{name} of number {number} is {value!r}, and no {wanted}")
    return told
