"""How deep the tuples of a pickle are nested, known before it is read.

Python computes the hash of a tuple, where it is the key of a mapping, by recursion in C that has no
bound: a file of 300 KB ends the process that reads it, without an error.
"""

from __future__ import annotations

import pickle
import pickletools

MAX_TUPLES = 100  # in one another
# What makes tuples and frozen sets: TUPLE1, TUPLE2, TUPLE3, TUPLE, FROZENSET.
_MAKERS = (b"\x85", b"\x86", b"\x87", b"t", b"\x91")
# So many of them can be in one another without harm. Fewer are not looked at: that takes a while.
_HARMLESS = 5_000


def check_nesting(data: bytes) -> None:
    """Refuse a pickle whose tuples are nested too deeply.

    Raises
    ------
    pickle.UnpicklingError
        If they are, or it is not a pickle.
    """
    if sum(data.count(maker) for maker in _MAKERS) > _HARMLESS and _depth(data) > MAX_TUPLES:
        raise pickle.UnpicklingError("nested too deeply")


def _depth(data: bytes) -> int:
    """Return how deep anything in a pickle is nested, by the effect of each opcode on the stack.

    A container that is filled after others refer to it counts as they saw it: a tuple is not.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    deepest = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name, before = opcode.name, list(opcode.stack_before)
            if name == "MARK":
                marks.append(len(stack))
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[int(str(argument))] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[int(str(argument))])
            else:
                if pickletools.markobject in before:
                    taken = marks.pop() - before.index(pickletools.markobject)
                else:
                    taken = len(stack) - len(before)
                depth = 1 + max(stack[taken:], default=0) if before else 0
                deepest = max(deepest, depth)
                stack[taken:] = [depth] * len(opcode.stack_after)
    except (ValueError, LookupError) as error:
        raise pickle.UnpicklingError(f"not a pickle: {error}") from None
    return deepest
