"""``log()`` and its variants, what components print and log, and where it goes."""

from flambe.logging.events import (
    log,
    log_histogram,
    log_image,
    log_pr_curve,
    log_pr_curves,
    log_scalar,
    log_text,
)

__all__ = [
    "log",
    "log_histogram",
    "log_image",
    "log_pr_curve",
    "log_pr_curves",
    "log_scalar",
    "log_text",
]
