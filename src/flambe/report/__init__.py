"""The Report Site: a run, live, in a browser.

It reads what a run writes (:mod:`flambe.progress`), and nothing else of flambe: it can be started,
stopped and killed at any time, and shows runs that are long over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from flambe.report.app import create_app

__all__ = ["create_app"]


# Some modules of this room run as processes of their own, and need no web server.
__getattr__ = lazy_exports(__name__, {"create_app": "app"})
