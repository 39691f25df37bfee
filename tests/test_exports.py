"""What the package offers, and what importing it costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from flambe.compile import tags
from flambe.compile.registry import CLASSES

# Package -> its public names: documented, importable, and no others.
PUBLIC = {
    "flambe": "Component Experiment RunHandle Schema __version__ load load_config log runs save trust",
    "flambe.compile": (
        "Component Grid Link MappedRegistrable Registrable Sample Schema alias load"
        " registrable_factory save yaml"
    ),
    "flambe.logging": (
        "log log_histogram log_image log_pr_curve log_pr_curves log_scalar log_text"
    ),
    "flambe.runnable": "ClusterRunnable RemoteEnvironment Runnable Secret Secrets",
    "flambe.experiment": "Experiment",
    "flambe.cluster": "AWSCluster Cluster LocalCluster LoopbackHost Machine SSHCluster",
    "flambe.remote": "Address Command Connection Copy Host Login Result Transport each",
    "flambe.testing": (
        "ComponentRun FakeAgent FakeConnection RecordedCommand RecordingCluster RecordingObserver"
        " fake_machine run_component run_experiment"
    ),
    "flambe.report": "create_app",
    "flambe.learn": "Evaluator Script Trainer",
    "flambe.dataset": "BaseDataset DataError SklearnDataset Table TabularDataset",
    "flambe.field": (
        "CharTokenizer Field FieldError LabelField NumberField Ragged TextField Tokenizer"
        " WordTokenizer"
    ),
    "flambe.sampler": "BaseSampler",
    "flambe.metric": "AUC Accuracy F1 Loss Metric Perplexity Precision Recall",
    "flambe.nn": (
        "AttentionPooling Classifier Embedder Embeddings FirstPooling LastPooling MLPEncoder"
        " MaxPooling MeanPooling Module Pooling RNNEncoder SoftmaxLayer TextClassifier"
        " TransformerEncoder"
    ),
}

# What takes seconds to import, and what must do without it.
HEAVY = (
    *("torch", "ray", "boto3", "botocore", "tensorboard", "tensorboardX", "pandas", "sklearn"),
    *("asyncssh", "starlette", "uvicorn", "httpx", "psutil", "sse_starlette", "zipstream"),
)
LIGHT = (
    "flambe",
    "flambe.cli",
    "flambe.cli.remote_run",
    "flambe.cli.site",
    "flambe.cluster",
    "flambe.compile",
    "flambe.experiment",
    "flambe.remote",
    "flambe.report",
    "flambe.runnable",
)


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_what_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_can_be_imported(package: str) -> None:
    module = importlib.import_module(package)
    for name in PUBLIC[package].split():
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", PUBLIC)
def test_public_objects_have_docstrings(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    missing = [n for n in PUBLIC[package].split() if not getattr(module, n).__doc__]
    assert not missing


@pytest.mark.parametrize("tag", tags.BUILT_IN)
def test_every_built_in_tag_leads_to_a_class(tag: str) -> None:
    assert isinstance(CLASSES.import_target(tags.BUILT_IN[tag]), type)


def test_unknown_names_are_attribute_errors() -> None:
    for package in PUBLIC:
        module = importlib.import_module(package)
        assert not hasattr(module, "no_such_name")


@pytest.mark.parametrize("package", LIGHT)
def test_importing_loads_nothing_heavy(package: str) -> None:
    code = (
        f"import sys, {package}; print(*sorted(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("arguments", [["--help"], ["site", "--help"], ["status"]])
def test_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom flambe.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded', *sorted(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "loaded", done.stdout
