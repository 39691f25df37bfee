"""Environments that hosts of tests have from the beginning, installed once for all of them.

To install an environment takes half a minute of each host, and to remove it as long. Tests that are
not about that get hosts that have it: flambe finds it by its name, which follows from all that is in
it, and checks it as ever. One of another name is installed as on any host.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from flambe._files import file_lock
from tests.metal.metal import Metal


def layer(folder: Path, install: Callable[[Metal], None]) -> Path:
    """Return a folder of environments, for ``Metal(layer=…)``.

    Parameters
    ----------
    folder
        The folder: made unless it exists, once for all processes that ask for it.
    install
        Installs the environments on the only host of what it is called with.
    """
    with file_lock(folder.with_suffix(".lock")):
        if not folder.exists():
            with Metal(1) as metal:
                install(metal)
                (host,) = metal.hosts
                host.power_off()
                made = host.disk.upper / "home" / host.user / ".flambe" / "envs"
                (made / ".lock").unlink(missing_ok=True)
                # It keeps its owners; across file systems, it is there as a whole or not at all.
                beside = folder.with_suffix(".part")
                shutil.rmtree(beside, ignore_errors=True)
                subprocess.run(["mv", made, beside], check=True)
                beside.rename(folder)
    return folder
