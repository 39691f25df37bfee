"""What every test gets: a home of its own, and a process as it was before."""

from __future__ import annotations

import copy
import gc
import itertools
import logging
import os
import re
import shutil
import sys
from collections.abc import Generator, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One thread each: several workers with many threads would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
PIECES = HERE / "experiment" / "ext"

# "from tests.experiment.lab import …" works from wherever pytest is started, and the extension
# "pieces" is importable here and in the processes that Ray starts.
for folder in (str(HERE.parent), str(PIECES)):
    if folder not in sys.path:
        sys.path.insert(0, folder)
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(PIECES), *filter(None, [os.environ.get("PYTHONPATH")])]
)
from flambe.compile import tags  # noqa: E402
from tests.examples import FEWER  # noqa: E402
from tests.raw import pytest_runtest_call  # noqa: E402, F401

# Machines are noisy: no test is judged by its time.
settings.register_profile("noisy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("noisy"), max_examples=FEWER)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out what make check leaves out")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("quick" if config.getoption("--quick") else "noisy")
    for line in (
        # Ray at import: its own use of what it, or Python, is about to drop.
        "ignore::DeprecationWarning:ray.*",
        "ignore::FutureWarning:ray.*",
        "ignore:.*pkg_resources.*",
        # Ray leaves its log files and sockets to the garbage collector at shutdown.
        "ignore:unclosed:ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ):
        config.addinivalue_line("filterwarnings", line)


# The modules that take longest, the longest first: begun first, as what begins last is waited for.
LONGEST = (
    "experiment/test_tune.py",
    "experiment/test_cluster_local.py",
    "experiment/test_cluster_on_hosts.py",
    "experiment/test_cluster_run.py",
    "cluster/providers/test_ssh.py",
    "experiment/test_cluster_aws.py",
    "cluster/provisioning/test_leaving.py",
    "experiment/test_cluster_faults.py",
    "cli/test_clusters.py",
    "cluster/test_commands.py",
    "cli/test_failures.py",
    "security/test_modes.py",
    "experiment/test_forgotten_state.py",
    "cluster/environment/test_system.py",
    "report/test_pages.py",
    "security/test_bombs.py",
    "cluster/environment/test_cluster_extensions.py",
    "cluster/services/test_shutdown.py",
    "security/test_ray.py",
    "cli/test_shown.py",
    "cli/test_failed_variants.py",
)

NO_TORCH = "needs torch, which is not installed"
HAS_TORCH = find_spec("torch") is not None
MISSING_PACKAGE = tags.missing_package

# `make check` leaves these out.
LEFT_OUT = ("integration", "root", "faults", "long")
# The marks of a whole module, which ends where its brackets do.
MODULE_MARKS = re.compile(r"^pytestmark = (?:\[.*?\]$|.*?$)", re.MULTILINE | re.DOTALL)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick, import no module that is left out as a whole: to import all takes seconds."""
    if not config.getoption("--quick") or collection_path.suffix != ".py":
        return None
    marks = MODULE_MARKS.search(collection_path.read_text(encoding="utf-8"))
    return True if marks and any(f"mark.{mark}" in marks[0] for mark in LEFT_OUT) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what --quick leaves out, and skip what takes long unless FLAMBE_LONG is set.

    Of several processes, the first modules are the longest.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        ranks = {HERE / name: rank for rank, name in enumerate(LONGEST)}
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
    if config.getoption("--quick"):
        left_out = [item for item in items if any(map(item.get_closest_marker, LEFT_OUT))]
        config.hook.pytest_deselected(items=left_out)
        others = set(items).difference(left_out)
        items[:] = [item for item in items if item in others]
    if not HAS_TORCH:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason=NO_TORCH))
    if not os.environ.get("FLAMBE_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long: make faults"))


def pytest_collection_finish() -> None:
    """Leave what was imported to itself: each full collection of garbage would look through it."""
    gc.collect()
    gc.freeze()


def lacks_torch(error: BaseException | None) -> bool:
    """Whether something needs torch, and it is not installed: it has no wheel for some Pythons."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return error is not None and error.name == "torch"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a module that cannot be imported without torch, and say so."""
    report = yield
    if report.failed and "ModuleNotFoundError: No module named 'torch'" in report.longreprtext:
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {NO_TORCH}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Skip a test that cannot import torch, or whose files name what needs it, and say so."""
    if HAS_TORCH:
        return (yield)
    named: set[str] = set()

    def missing_package(tag: str, module: str) -> tags.UnknownTagError:
        named.add(module.partition(".")[0])
        return MISSING_PACKAGE(tag, module)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tags, "missing_package", missing_package)
            return (yield)
    except Exception as error:
        if lacks_torch(error) or "torch" in named:
            pytest.skip(NO_TORCH)
        raise


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the environments that hosts had in common, which are large; see tests.metal.layer."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        shutil.rmtree(factory.getbasetemp() / "layers", ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _checkout() -> Iterator[None]:
    """Ask git about this checkout once: most runs use an extension in it, and each would ask."""
    from flambe.packaging import repositories
    from flambe.progress import Repository

    read = repositories._read
    answers: dict[tuple[str, ...], Repository] = {}

    def answer(top: Path, uses: Sequence[str]) -> Repository:
        if top != HERE.parent:
            return read(top, uses)
        if tuple(uses) not in answers:
            answers[tuple(uses)] = read(top, uses)
        return copy.deepcopy(answers[tuple(uses)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repositories, "_read", answer)
        yield


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Count folders; those of mktemp are counted by listing, which takes seconds for thousands."""
    folder = tmp_path_factory.mktemp("h", numbered=False)  # short: paths of sockets have a bound
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give flambe a home of its own."""
    folder = next(_homes)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("FLAMBE_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Forget what a test did to this process: hidden values, log handlers, the working folder."""
    from flambe.logging import events, redact

    root, own = logging.getLogger(), logging.getLogger("flambe")
    handlers, level, own_level, folder = root.handlers[:], root.level, own.level, os.getcwd()
    hidden = set(redact._values)
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    own.setLevel(own_level)
    redact._values.clear()
    redact._values.update(hidden)
    redact._index()
    events.use(None)
    os.chdir(folder)
