"""The checkpoint that an unfinished variant continues from, after a run that was interrupted."""

from __future__ import annotations

from collections.abc import Callable

from flambe.experiment.retention import Retention
from flambe.experiment.storage.checkpoints import RESUMED, Checkpoints
from flambe.experiment.storage.manifest import Manifest
from flambe.progress import VariantState, better, is_number


def restore_point(
    checkpoints: Checkpoints,
    stage: str,
    variant: str,
    retention: Retention,
    notify: Callable[[str], None],
) -> tuple[str, Manifest] | None:
    """Return the newest checkpoint of a variant that is what was written, and its manifest.

    It gets a name that Tune does not give to its own checkpoints, or it would be overwritten by the
    first: test_a_retry_after_resuming_goes_on_from_the_resumed_checkpoint.

    Parameters
    ----------
    checkpoints
        The checkpoints of the run.
    stage, variant
        The stage, and the name of the variant.
    retention
        Which others are kept.
    notify
        Called with each message on a damaged one.
    """
    folder = checkpoints.folder(stage, variant)
    damages = checkpoints.drop_damaged(folder)
    settled = checkpoints.settle(folder, RESUMED, retention)
    manifest = checkpoints.manifest(settled.latest) if settled is not None else None
    instead = "starts again, for no other checkpoint of it is kept"
    if manifest is not None:
        instead = f"continues from its checkpoint at step {manifest.step}"
    for text in damages:
        notify(f"{text}: {stage}/{variant} {instead}")
    return None if settled is None or manifest is None else (settled.latest, manifest)


def best_until(manifest: Manifest, earlier: VariantState) -> float | None:
    """Return what was best up to a checkpoint; where that is NaN, the journal knows."""
    best = manifest.best
    return best if best is None or is_number(best) else better(earlier.best, manifest.metric)
