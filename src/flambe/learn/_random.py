"""The state of the random number generators of this process, as plain values."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]


def capture() -> RandomState:
    """Return the state of Python's, NumPy's and torch's generators."""
    version, internal, gauss = random.getstate()
    legacy: Any = np.random.get_state(legacy=True)
    state: RandomState = {
        "python": [version, list(internal), gauss],
        "numpy": [legacy[0], legacy[1].tolist(), *map(float, legacy[2:])],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: RandomState) -> None:
    """Give the generators a state back; one without GPUs may be restored with them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), int(position), int(has_gauss), cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        states = [own.cpu() for own in state["cuda"]]
        for device, own in zip(range(torch.cuda.device_count()), states, strict=False):
            torch.cuda.set_rng_state(own, device)


def seed(value: int) -> None:
    """Seed all of them."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
