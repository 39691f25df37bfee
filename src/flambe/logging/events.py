"""What components log: lines and figures, sent over one channel.

A component calls :func:`log`; where it runs, the current channel takes the record to the one
recorder of the run, in this process or on another host. Without a channel a figure is logged as
text, and in a script that ``!Script`` started it goes to the file that the script is given.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from flambe.progress import with_names

if TYPE_CHECKING:  # imported when an array is logged: the command is quick
    import numpy.typing as npt

_text_log = logging.getLogger("flambe.log")

#: The environment variable that names the file of JSON lines of a script that ``!Script`` runs.
METRICS_FILE = "FLAMBE_METRICS"


@dataclass(frozen=True)
class Record:
    """One thing that was logged.

    Attributes
    ----------
    source
        Whose: the id of a variant, or empty for the run itself.
    kind
        ``line``, ``scalar``, ``text``, ``histogram``, ``image`` or ``pr_curve``; ``config`` for the
        configuration of the source, ``end`` for its end, ``load`` for how busy a host is, and
        ``advice`` for lines that are logged once in a run, however many sources send them;
        ``progress`` for an unfinished line, and ``whole`` for text that is for its log only.
    tag
        The name of a figure; for a line its level (``INFO``, ``stdout``, ``stderr`` …); for advice
        what it is about.
    value
        Text, a number or NumPy arrays.
    step
        The step that a figure belongs to.
    time
        Seconds since the epoch.
    """

    source: str
    kind: str
    tag: str
    value: Any
    step: int | None
    time: float


class Channel(Protocol):
    """Takes records to the recorder; never blocks for long, never raises for a value."""

    def send(self, record: Record) -> None:
        """Take a record."""

    def flush(self) -> None:
        """Return when all that was sent has arrived."""


class _Current:
    channel: Channel | None = None
    source: str = ""
    step: int | None = None


_current = _Current()


def use(channel: Channel | None, source: str = "") -> None:
    """Send what is logged in this process from now on over a channel, as a source."""
    _current.channel = channel
    _current.source = source
    _current.step = None


def at_step(step: int) -> None:
    """Set the step of figures that are logged without one."""
    _current.step = step


def _emit(kind: str, tag: str, value: object, step: int | None) -> None:
    if step is None:
        step = _current.step
    if _current.channel is not None:
        _current.channel.send(Record(_current.source, kind, str(tag), value, step, time.time()))
    elif path := os.environ.get(METRICS_FILE):
        if kind in ("scalar", "text"):
            with open(path, "a", encoding="utf-8") as stream:
                entry = with_names({"tag": str(tag), "value": value, "step": step})
                stream.write(json.dumps(entry) + "\n")
    elif kind in ("scalar", "text"):
        _text_log.info("%s: %s%s", tag, value, "" if step is None else f" (step {step})")


def _array(values: object) -> npt.NDArray[Any]:
    import numpy as np

    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        tensor = values.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray(tensor.float() if tensor.dtype == torch.bfloat16 else tensor)
    return np.asarray(values)


def _step_of(step: int | None, global_step: int | None) -> int | None:
    """Return the step that was passed, by either name."""
    if step is not None and global_step is not None:
        raise TypeError("step and global_step are the same: pass one of them")
    return global_step if step is None else step


def log(
    tag: str, value: object, step: int | None = None, *, global_step: int | None = None
) -> None:
    """Log a value: to TensorBoard by its type, and to the metrics of the variant.

    Parameters
    ----------
    tag
        Its name.
    value
        A number or an array or tensor of one element (a scalar); text; a mapping of names to
        numbers (one scalar each, ``tag/name``); a longer array or tensor (a histogram).
    step
        The step that it belongs to; the current one of the component by default.
    global_step
        Another name of ``step``, which TensorBoard uses; so do the functions below.

    Raises
    ------
    TypeError
        If it is none of those.
    """
    step = _step_of(step, global_step)
    if isinstance(value, bool | int | float):
        _emit("scalar", tag, float(value), step)
    elif isinstance(value, str):
        _emit("text", tag, value, step)
    elif isinstance(value, Mapping):
        for name, child in value.items():
            log(f"{tag}/{name}", child, step)
    else:
        array = _array(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"cannot log {tag!r}: a {type(value).__name__}")
        if array.size == 1:
            _emit("scalar", tag, float(array.reshape(())), step)
        else:
            _emit("histogram", tag, array.reshape(-1), step)


def log_scalar(
    tag: str, value: object, step: int | None = None, *, global_step: int | None = None
) -> None:
    """Log a number, or an array or tensor of one element.

    Raises
    ------
    TypeError
        If it is not one number.
    """
    array = _array(value)
    if array.dtype.kind not in "biuf" or array.size != 1:
        shape = f" of shape {array.shape}" if array.shape else ""
        raise TypeError(f"cannot log {tag!r} as a scalar: a {type(value).__name__}{shape}")
    _emit("scalar", tag, float(array.reshape(())), _step_of(step, global_step))


def log_text(
    tag: str, text: str, step: int | None = None, *, global_step: int | None = None
) -> None:
    """Log text."""
    _emit("text", tag, str(text), _step_of(step, global_step))


def log_histogram(
    tag: str, values: object, step: int | None = None, *, global_step: int | None = None
) -> None:
    """Log the distribution of values, of any shape."""
    _emit("histogram", tag, _array(values).reshape(-1), _step_of(step, global_step))


def log_image(
    tag: str, image: object, step: int | None = None, *, global_step: int | None = None
) -> None:
    """Log an image: (height, width), (3, height, width) or (height, width, 3).

    Values are 0 to 255 for integers, 0 to 1 for floats.
    """
    array = _array(image)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or (array.shape[0] not in (1, 3) and array.shape[2] not in (1, 3)):
        raise TypeError(f"cannot log {tag!r} as an image: its shape is {array.shape}")
    if array.shape[0] not in (1, 3):
        array = array.transpose(2, 0, 1)
    _emit("image", tag, array, _step_of(step, global_step))


def log_pr_curve(
    tag: str,
    labels: object,
    predictions: object,
    step: int | None = None,
    *,
    global_step: int | None = None,
) -> None:
    """Log precision against recall, of one class.

    Parameters
    ----------
    tag
        Its name.
    labels
        Whether each belongs to the class: 0 or 1, shape (n,).
    predictions
        The probability of the class, shape (n,).
    step, global_step
        The step.

    Raises
    ------
    TypeError
        If the shapes differ.
    """
    truth, scores = _array(labels).reshape(-1), _array(predictions)
    if scores.shape != truth.shape:
        raise TypeError(
            f"cannot log {tag!r} as one curve: labels have the shape {truth.shape}, predictions "
            f"{scores.shape} (log_pr_curves takes the probabilities of several classes)"
        )
    _emit("pr_curve", tag, (truth, scores), _step_of(step, global_step))


def log_pr_curves(
    tag: str,
    labels: object,
    predictions: object,
    step: int | None = None,
    *,
    global_step: int | None = None,
) -> None:
    """Log precision against recall.

    Parameters
    ----------
    tag
        Its name.
    labels
        The classes: shape (n,).
    predictions
        The probability of the positive class, shape (n,), or of each class, shape (n, classes):
        then there is one curve per class.
    step, global_step
        The step.
    """
    truth, scores = _array(labels).reshape(-1), _array(predictions)
    step = _step_of(step, global_step)
    if scores.ndim == 1:
        log_pr_curve(tag, truth, scores, step)
        return
    for index in range(scores.shape[1]):
        log_pr_curve(f"{tag}/{index}", (truth == index).astype(int), scores[:, index], step)
