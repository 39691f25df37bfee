"""nvidia-smi: the figures of GPUs, and the processes that compute on them.

Standard library only, for Python 3.8: the agent of a host, and its reaper, ship this file too.

Where a driver hangs, nvidia-smi hangs in the kernel and cannot be killed: it is left behind, and no
other one is started as long as it is there.
"""

from __future__ import annotations

import shutil
import subprocess

MIB = 1024**2  # the unit of memory in its answers
_hung: list[subprocess.Popen[str]] = []


class NvidiaSmiError(Exception):
    """nvidia-smi failed or did not answer; says why."""


class Query:
    """A query that runs; several may run at the same time.

    Parameters
    ----------
    query
        As nvidia-smi takes it: ``"gpu=index,uuid"``, ``"compute-apps=pid"``.
    """

    def __init__(self, query: str) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._problem = ""
        _hung[:] = [process for process in _hung if process.poll() is None]
        if _hung:
            self._problem = "no answer"
        elif shutil.which("nvidia-smi") is not None:
            command = ["nvidia-smi", f"--query-{query}", "--format=csv,noheader,nounits"]
            null, pipe = subprocess.DEVNULL, subprocess.PIPE
            try:
                self._process = subprocess.Popen(
                    command, stdin=null, stdout=pipe, stderr=pipe, text=True, errors="replace"
                )
            except OSError as error:
                self._problem = str(error)

    def rows(self, deadline: float) -> list[list[str]]:
        """Return the fields of each line of the answer; none on a host without nvidia-smi.

        Raises
        ------
        NvidiaSmiError
            If it fails, or has not answered after so many seconds.
        """
        if self._problem:
            raise NvidiaSmiError(self._problem)
        if self._process is None:
            return []
        try:
            output, errors = self._process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _hung.append(self._process)
            raise NvidiaSmiError("no answer") from None
        if self._process.returncode:
            last = (output + errors).strip().splitlines()[-1:]
            raise NvidiaSmiError(f"nvidia-smi failed: {''.join(last) or self._process.returncode}")
        return [[part.strip() for part in line.split(",")] for line in output.splitlines()]


def number(text: str) -> float:
    """Return a figure; 0 for one that a GPU does not have: ``[N/A]``."""
    try:
        return float(text)
    except ValueError:
        return 0.0
