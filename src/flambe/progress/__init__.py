"""The state of a run, as JSON that can be read while it runs.

``state.json`` is small: the run and its stages. It is written beside and moved into place, and the
one before is kept, so that a reader always finds a whole one. What happens to variants is appended
to ``variants.jsonl``, a line per change: the first of a variant holds all of its fields,
others those that changed. A truncated line is ignored, and so is a file that is not a regular one.

==================================  ===============================================================
``<run>/state.json``                the run, its stages, their counts (:class:`RunState`)
``<run>/variants.jsonl``            the variants and what happened to them (:class:`VariantState`)
``<run>/invocations.jsonl``         how it was made: each start of it (:class:`Invocation`)
``<run>/run.log``                   all that components printed and logged, with stage and variant
``<run>/experiment.yaml``           the configuration, as it was given
``<run>/hosts.jsonl``               how busy each host was, a line now and then
``<run>/<stage>/<variant>/``        ``config.yaml``, ``variant.log``, ``metrics.jsonl``,
                                    ``tensorboard/``, ``checkpoint/checkpoint.flambe/``
==================================  ===============================================================
"""

from flambe.progress.clock import steady_time
from flambe.progress.figures import (
    NOT_FINITE,
    better,
    figure_text,
    is_number,
    named_value,
    rank,
    ranked,
    with_names,
)
from flambe.progress.folder import (
    METRICS,
    TENSORBOARD,
    VARIANT_CONFIG,
    VARIANT_LOG,
    RunFolder,
)
from flambe.progress.invocations import (
    COLLECTED,
    Invocation,
    Repository,
    read_invocation,
    read_invocations,
)
from flambe.progress.lines import (
    Tail,
    bounded_lines,
    end_last_line,
    objects,
    open_regular,
    read_lines,
)
from flambe.progress.liveness import interrupt, is_alive, process_lives
from flambe.progress.records import (
    RunRecord,
    VariantRow,
    best_variant,
    flat_rows,
    run_folders,
)
from flambe.progress.seeds import SeedGroup, group_seeds, ranked_groups
from flambe.progress.state import (
    FORMAT,
    RunState,
    StageState,
    Status,
    VariantState,
    apply_line,
    change_line,
    finite,
    host_name,
    outcome,
    read_state_text,
    variants_of,
)
from flambe.progress.text import best_so_far, choices_text, count_text, format_duration

__all__ = [
    "COLLECTED",
    "FORMAT",
    "METRICS",
    "NOT_FINITE",
    "TENSORBOARD",
    "VARIANT_CONFIG",
    "VARIANT_LOG",
    "Invocation",
    "Repository",
    "RunFolder",
    "RunRecord",
    "RunState",
    "SeedGroup",
    "StageState",
    "Status",
    "Tail",
    "VariantRow",
    "VariantState",
    "apply_line",
    "best_so_far",
    "best_variant",
    "better",
    "bounded_lines",
    "change_line",
    "choices_text",
    "count_text",
    "end_last_line",
    "figure_text",
    "finite",
    "flat_rows",
    "format_duration",
    "group_seeds",
    "host_name",
    "interrupt",
    "is_alive",
    "is_number",
    "named_value",
    "objects",
    "open_regular",
    "outcome",
    "process_lives",
    "rank",
    "ranked",
    "ranked_groups",
    "read_invocation",
    "read_invocations",
    "read_lines",
    "read_state_text",
    "run_folders",
    "steady_time",
    "variants_of",
    "with_names",
]
