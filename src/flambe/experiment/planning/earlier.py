"""What earlier runs left, as a plan reads it: nothing is changed, here or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flambe.compile.state.s3 import connect
from flambe.experiment.spec import ExperimentSpec
from flambe.experiment.storage.checkpoints import Checkpoints
from flambe.experiment.storage.output_folder import output_folder
from flambe.experiment.storage.saved_results import (
    ListedResults,
    RecordedResults,
    SavedResults,
    StoredResults,
)
from flambe.experiment.variants.lineage import EarlierResults
from flambe.experiment.variants.recognition import read_record
from flambe.experiment.variants.record import LineageRecord
from flambe.progress import RunFolder, objects, read_lines
from flambe.runnable.secrets import Secrets

ATTEMPTS = 3  # at a bucket: a run waits for minutes, a plan does not


@dataclass(frozen=True)
class EarlierRuns:
    """What earlier runs in a folder left.

    Attributes
    ----------
    results
        Their results, by the journal.
    record
        What the last of them wrote down of its configuration.
    saved
        Tells what is there of the results.
    problem
        Why that is only what the journal says, for people; empty if checkpoints are looked at.
    """

    results: EarlierResults = field(default_factory=lambda: EarlierResults({}))
    record: LineageRecord | None = None
    saved: SavedResults = field(default_factory=RecordedResults)
    problem: str = ""


def read_folder(spec: ExperimentSpec, secrets: str = "") -> EarlierRuns:
    """Return what earlier runs on this machine left.

    Parameters
    ----------
    spec
        The experiment.
    secrets
        The file of secrets: its variables open a bucket.
    """
    folder = RunFolder(output_folder(spec))
    results = EarlierResults.read(read_lines(folder.variants))
    saved: SavedResults = StoredResults(Checkpoints(str(folder.root)))
    problem = ""
    if spec.storage and not spec.debug and results.entries:
        saved, problem = list_bucket(spec, folder.root.name, secrets)
    return EarlierRuns(results, read_record(folder), saved, problem)


def parse(
    spec: ExperimentSpec, journal: str, record: str, manifests: str | None, secrets: str = ""
) -> EarlierRuns:
    """Return what earlier runs on a cluster left.

    Parameters
    ----------
    spec
        The experiment.
    journal, record
        What the files on the orchestrator hold; empty without them.
    manifests
        The paths of the manifests of checkpoints, below the folder of the run, a line each; None
        if they are not known.
    secrets
        The file of secrets: its variables open a bucket.
    """
    results = EarlierResults.read(objects(journal.splitlines()))
    saved: SavedResults = RecordedResults()
    problem = ""
    if spec.storage and results.entries:
        saved, problem = list_bucket(spec, f"output__{spec.name}", secrets)
    elif manifests is not None:
        saved = ListedResults(manifests.splitlines())
    return EarlierRuns(results, LineageRecord.parse(record), saved, problem)


def list_bucket(spec: ExperimentSpec, name: str, secrets: str) -> tuple[SavedResults, str]:
    """Return what is in the bucket of an experiment, or why that is not known."""
    url = f"{spec.storage.rstrip('/')}/{name}"
    try:
        root = url.removeprefix("s3://")
        path = Path(secrets)
        variables = Secrets.read(path).variables if secrets and path.is_file() else {}
        files = connect(root.partition("/")[0], variables, attempts=ATTEMPTS)
        return ListedResults(Checkpoints(root, files).list_manifests()), ""
    except (OSError, ValueError) as error:  # ValueError: settings of AWS that are wrong
        return RecordedResults(), f"{url} cannot be reached: {error}"
