"""A run in words: what every display of it says, on a terminal, in a log or in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flambe.progress.figures import figure_text, is_number, ranked
from flambe.progress.state import StageState, Status, VariantState

#: The sign of each status in tables, wherever they are shown.
SIGNS: Mapping[Status, str] = {
    Status.WAITING: "·",
    Status.RUNNING: "▶",
    Status.FINISHED: "✔",
    Status.STOPPED: "✔",
    Status.REUSED: "↺",
    Status.FAILED: "✘",
    Status.INTERRUPTED: "■",
    Status.MASKED: "-",
}


def choices_text(choices: Mapping[str, object]) -> str:
    """Return hyper-parameters on one line: ``n_layers=2,lr=0.001``."""
    return ",".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in choices.items()
    )


def format_duration(seconds: float) -> str:
    """Return a duration as text: ``12 s``, ``3 min 04 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole >= 10 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count_text(stage: StageState, variants: Iterable[VariantState]) -> str:
    """Return how far a stage is: ``3 of 12 variants done, 2 running``."""
    statuses = [variant.status for variant in variants]
    counts = {status: statuses.count(status) for status in Status}
    done = sum(count for status, count in counts.items() if status.done)
    text = f"{done} of {stage.total - counts[Status.MASKED]} variants done"
    for status in (Status.RUNNING, Status.FAILED, Status.MASKED, Status.REUSED):
        adjective = "skipped" if status is Status.MASKED else status.value
        text += f", {counts[status]} {adjective}" if counts[status] else ""
    return text


def best_so_far(variants: Iterable[VariantState]) -> tuple[str, VariantState] | None:
    """Return the best figure that a variant reached until now, and the variant; None without."""
    entries = [variant for variant in variants if variant.status is not Status.FAILED]
    first = next(iter(ranked(entries, lambda variant: variant.best)), None)
    if first is None or not is_number(first.best):
        return None
    return figure_text(first.best, 4), first
