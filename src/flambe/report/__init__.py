"""The Report Site: a run, live, in a browser.

It reads what a run writes (:mod:`flambe.progress`), and nothing else of flambe: it can be started,
stopped and killed at any time, and shows runs that are long over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flambe.report.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    # Some modules of this room run as processes of their own, and need no web server.
    if name == "create_app":
        from flambe.report.app import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
