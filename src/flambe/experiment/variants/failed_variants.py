"""The report on variants that failed for good: which, why, and where their logs are."""

from __future__ import annotations

from collections.abc import Sequence

from flambe.errors import counted
from flambe.progress import VARIANT_LOG, RunFolder, VariantState, choices_text

MOST = 10  # reasons that are listed


def failure_report(folder: RunFolder, failed: Sequence[VariantState], summary: str) -> str:
    """Return a summary, and the reasons: the first in full, of the others a line.

    Parameters
    ----------
    folder
        Of the run.
    failed
        The variants that failed; at least one.
    summary
        The first line.
    """
    first, *others = _by_reason(failed)
    lines = [
        summary,
        f"{_describe(first)}: {first[0].error}",
        f"  its log: {_log(folder, first[0])}",
    ]
    for group in others[: MOST - 1]:
        lines.append(f"{_describe(group)}: {_line(group[0].error)}")
        lines.append(f"  its log: {_log(folder, group[0])}")
    if len(others) >= MOST:
        lines.append(f"and {counted(len(others) - MOST + 1, 'more reason')}, in {folder.log}")
    return "\n".join(lines)


def _by_reason(failed: Sequence[VariantState]) -> list[list[VariantState]]:
    groups: dict[str, list[VariantState]] = {}
    for entry in failed:
        groups.setdefault(f"{entry.stage}\n{_line(entry.error)}", []).append(entry)
    return list(groups.values())


def _describe(group: Sequence[VariantState]) -> str:
    name = f"{group[0].stage} {choices_text(group[0].choices)}".strip()
    return name if len(group) == 1 else f"{name}, and {counted(len(group) - 1, 'other')} alike"


def _line(error: str) -> str:
    return error.strip().partition("\n")[0]


def _log(folder: RunFolder, entry: VariantState) -> str:
    return str(folder.variant(entry.stage, entry.name) / VARIANT_LOG)
