"""The state of the random number generators of this process, as plain values.

Python's generator always; NumPy's and torch's if they are loaded.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

RandomState = dict[str, Any]


def capture() -> RandomState:
    """Return the state of Python's, NumPy's and torch's generators."""
    version, internal, gauss = random.getstate()
    state: RandomState = {"python": [version, list(internal), gauss]}
    if (numpy := sys.modules.get("numpy")) is not None:
        legacy = numpy.random.get_state(legacy=True)
        state["numpy"] = [legacy[0], legacy[1].tolist(), *map(float, legacy[2:])]
    if (torch := sys.modules.get("torch")) is not None:
        state["torch"] = torch.get_rng_state()
        # Asking a GPU that is not in use would allocate memory on it.
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: RandomState) -> None:
    """Give the generators a state back; one without GPUs may be restored with them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "numpy" in state:
        import numpy as np

        name, keys, position, has_gauss, cached = state["numpy"]
        key = np.array(keys, np.uint32)
        np.random.set_state((name, key, int(position), int(has_gauss), cached))
    if "torch" in state:
        import torch

        torch.set_rng_state(state["torch"].cpu())
        if "cuda" in state and torch.cuda.is_available():
            states = [own.cpu() for own in state["cuda"]]
            for device, own in zip(range(torch.cuda.device_count()), states, strict=False):
                torch.cuda.set_rng_state(own, device)


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Restore Python's generator afterwards, whatever draws from it meanwhile (an import, say)."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def seed(value: int) -> None:
    """Seed all of them."""
    random.seed(value)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(value % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(value)
