"""A process that was started for another one, and ends with it, however that ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def end_with(parent: int, clean_up: Callable[[], object] = lambda: None) -> None:
    """End this process as soon as the one that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        clean_up()
        os._exit(0)

    threading.Thread(target=watch, name="flambe-parent", daemon=True).start()
