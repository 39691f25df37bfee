"""Scripts that exist already."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import modulefinder
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flambe._grammar import as_argv, as_list
from flambe.compile import Component, Schema, workspace
from flambe.compile.build import folder_of
from flambe.errors import RunError
from flambe.learn import _process, _requirements
from flambe.logging import log, log_text
from flambe.progress import named_value

_logger = logging.getLogger(__name__)

Value = str | int | float | bool | None | Sequence[str | int | float]

#: The environment variable that names the file which a script may write its figures to.
METRICS_FILE = "FLAMBE_METRICS"
# How many lines of the output an error shows.
_TAIL = 40


class Script(Component):
    """Runs a command-line script, with the Python of this run.

    Its output appears as it comes. Figures reach TensorBoard, and may rank, if the script says
    them: with ``from flambe import log``, or by appending lines of JSON such as
    ``{"tag": "accuracy", "value": 0.9, "step": 3}`` to the file that the environment variable
    ``FLAMBE_METRICS`` names.

    Parameters
    ----------
    script
        The path of the script, from ``folder`` on.
    args
        Its positional arguments.
    kwargs
        Its options: ``{epochs: 3, verbose: true}`` is ``--epochs 3 --verbose``. False and null are
        left out; a list repeats the option.
    folder
        The working directory of the script: a path from the folder of the configuration, which is
        the default, or a link to a resource, which reaches a cluster too.
    requirements
        What has to be installed: a list as for pip, or the path of a file of them. It is checked
        before the script starts; nothing is installed.
    metric
        Which figure ranks, by its tag: the last value counts, and higher is better.
    env
        Environment variables to add.

    Raises
    ------
    RunError
        If the script fails: with the command, the exit code and the end of the output.
    """

    def __init__(
        self,
        script: str,
        args: Sequence[str | int | float | bool] = (),
        kwargs: Mapping[str, Value] | None = None,
        *,
        folder: str | None = None,
        requirements: Sequence[str] | str | None = None,
        metric: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.script = script
        self.args = as_list(args, "args takes a list", as_argv(args))
        self.kwargs = dict(kwargs or {})
        self.folder = folder
        self.requirements = requirements
        self.metric_tag = metric
        self.env = dict(env or {})
        self.figures: dict[str, float] = {}
        self.register_attrs("figures")

    @classmethod
    def check_schema(cls, schema: Schema) -> Iterator[tuple[tuple[str, ...], str, str]]:
        """Yield what is wrong with a configuration that keywords and types do not tell."""
        script, folder = schema.kwargs.get("script"), schema.kwargs.get("folder")
        base = schema.place.folder if schema.place is not None else ""
        if base and isinstance(script, str) and isinstance(folder, str | None):
            path = _folder(Path(base), folder) / script
            if not path.is_file():
                hint = "paths start at the folder of the configuration"
                yield ("script",), f"there is no script {path}", hint

    @classmethod
    def input_files(cls, schema: Schema) -> Iterator[str]:
        """Yield the script, and what it imports from its own folder."""
        keywords = dict(zip(("script", "args", "kwargs"), schema.args, strict=False))
        keywords |= schema.kwargs
        script, folder = keywords.get("script"), keywords.get("folder")
        base = schema.place.folder if schema.place is not None else os.getcwd()
        if isinstance(script, str) and isinstance(folder, str | None):
            path = _folder(Path(base), folder) / script
            yield str(path)
            yield from _imported(path)

    @property
    def command(self) -> list[str]:
        """What is run."""
        options = [part for key, value in self.kwargs.items() for part in _option(key, value)]
        return [sys.executable, self.script, *map(str, self.args), *options]

    def run(self) -> bool:
        """Run the script to its end."""
        folder = _folder(folder_of(self), self.folder)
        if not (folder / self.script).is_file():
            raise RunError(f"there is no script {folder / self.script}")
        if self.requirements is not None:
            _requirements.check(self.requirements, folder)
        tail: collections.deque[str] = collections.deque(maxlen=_TAIL)

        def line(text: str) -> None:
            tail.append(text)
            # A console that is gone is no reason to stop reading what the script says.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.write(text + "\n")
                sys.stdout.flush()

        with tempfile.TemporaryDirectory(prefix="flambe-script-") as scratch:
            figures = _Figures(Path(scratch, "metrics.jsonl"))
            environment = {
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **self.env,
                METRICS_FILE: str(figures.path),
            }
            if (own := workspace.of(self)) is not None:
                environment["FLAMBE_FOLDER"] = str(own.path)
            code = _process.run(
                self.command,
                folder,
                environment,
                line=line,
                idle=lambda: self._take(figures.read()),
            )
            self._take(figures.read(last=True))
        if code != 0:
            raise RunError(
                f"the script failed with {_reason(code)}: {shlex.join(self.command)}"
                + "".join(f"\n  | {text}" for text in tail)
            )
        if self.metric_tag is not None and self.metric_tag not in self.figures:
            logged = ", ".join(self.figures) or "nothing"
            raise RunError(f"the script logged no {self.metric_tag!r}; it logged {logged}")
        return False

    def metric(self) -> float | None:
        """Return the last value of the figure that ranks."""
        return self.figures.get(self.metric_tag) if self.metric_tag is not None else None

    def _take(self, entries: Iterator[tuple[str, float | str, int | None]]) -> None:
        for tag, value, step in entries:
            if isinstance(value, str):
                log_text(tag, value, step)
            else:
                self.figures[tag] = value
                log(tag, value, step)


class _Figures:
    """A file of JSON lines that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        path.touch()

    def read(self, last: bool = False) -> Iterator[tuple[str, float | str, int | None]]:
        """Yield what was added; a line without its end is left for the next time."""
        with open(self.path, "rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        if not last:
            data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        for text in data.splitlines():
            if text.strip():
                try:
                    entry = json.loads(text)
                    value, step = named_value("value", entry["value"], entry), entry.get("step")
                    number = float(value) if not isinstance(value, str) else value
                    yield str(entry["tag"]), number, None if step is None else int(step)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    _logger.warning("not a figure: %s (%r)", text[:200], error)


def _folder(base: Path, folder: str | None) -> Path:
    return (base / Path(folder or ".").expanduser()).resolve()


def _imported(script: Path) -> Iterator[str]:
    """Yield the files that a script imports from its own folder; they are read, not run."""
    finder = modulefinder.ModuleFinder(path=[str(script.parent)])
    with contextlib.suppress(Exception):  # what is no Python raises what it will
        finder.run_script(str(script))
    files = {str(getattr(module, "__file__", None) or script) for module in finder.modules.values()}
    yield from sorted(files - {str(script)})


def _option(key: str, value: Value) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{key}"]
    if isinstance(value, list | tuple):
        return [part for item in value for part in (f"--{key}", str(item))]
    return [f"--{key}", str(value)]


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
