"""On PyPI the name ``flambe`` belongs to another project: nothing advises it, nothing fetches it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flambe._version import __version__
from flambe.errors import ConfigError, RunError, how_to_install
from flambe.learn import _requirements
from flambe.packaging import closure, own_name
from flambe.packaging.extensions import install

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ADVICE = re.compile(r"\b(?:pip|uv|pipx) (?:install|add) (?:[^\s,]+ )*?['\"]?flambe(?![\w./-])")
WARNING = "Do not `pip install flambe` by name"


def test_no_message_and_no_page_advises_the_name() -> None:
    """Three messages did: ``pip install 'flambe[learn]'``."""
    folders = [ROOT / name for name in ("src", "docs", "examples", "benchmarks", "tools")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += [*ROOT.glob("*.md"), *ROOT.glob("changelog.d/*.md"), ROOT / "Makefile"]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if path.suffix in (".py", ".md", ".yaml", ".js", ".html", "") and "vendor" not in path.parts
        for match in ADVICE.finditer(path.read_text("utf-8", "replace").replace(WARNING, ""))
    ]
    assert not found
    assert ADVICE.search("pip install 'flambe[learn]'")
    assert ADVICE.search("pip install flambe")
    assert not ADVICE.search("pip install '.[learn]'")


def distribution(folder: Path, name: str, version: str, *requires: str, **files: str) -> None:
    """Install a distribution into a folder, as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
    for file, text in files.items():
        (info / file.replace("__", ".")).write_text(text)


@pytest.mark.parametrize("options", [{"editable": True}, {}])
def test_the_way_of_the_checkout_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    checkout = tmp_path / "my flambe"
    checkout.mkdir()
    origin = {"url": checkout.as_uri(), "dir_info": options}
    distribution(tmp_path, "flambe", __version__, direct_url__json=json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    assert how_to_install("learn") == f"pip install -e '{checkout}[learn]'"
    checkout.rmdir()  # on a host, or in an image
    assert how_to_install("aws") == "pip install '.[aws]', in the checkout of flambe"


@pytest.mark.parametrize(
    "origin",
    [None, {"url": "https://h/flambe-1.whl", "archive_info": {}}, {"url": "file:///x.whl"}],
)
def test_an_installation_from_elsewhere_names_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: object
) -> None:
    files = {} if origin is None else {"direct_url__json": json.dumps(origin)}
    distribution(tmp_path, "flambe", __version__, **files)
    monkeypatch.syspath_prepend(tmp_path)
    assert how_to_install("aws") == "pip install '.[aws]', in the checkout of flambe"


# -- what hosts get -------------------------------------------------------------------------------


def test_an_extension_that_requires_flambe_gets_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "mine", "1", f"flambe>={__version__}", "rich")
    monkeypatch.syspath_prepend(tmp_path)
    found = closure.compute_closure(["flambe", "mine"])
    assert "flambe" not in found.versions
    assert not any(text.startswith("flambe") for text in found.requirements)


@pytest.mark.parametrize(
    "text", ["flambe>=9", "Flambe==0.4.18", "flambe[x]<0.1", "flambe @ https://h/flambe-1.whl"]
)
def test_an_extension_that_requires_another_flambe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    distribution(tmp_path, "mine", "1", text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"mine requires [Ff]lambe.*this is flambe") as raised:
        closure.compute_closure(["flambe", "mine"])
    assert own_name.WHY in str(raised.value)


def test_what_an_index_has_does_not_bring_the_other_flambe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dependency from an index that requires ``flambe``: hosts would resolve it from there."""
    distribution(tmp_path, "mine", "1", "theirs")
    distribution(tmp_path, "theirs", "1", "flambe")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="theirs requires flambe, and is not an extension"):
        closure.compute_closure(["flambe", "mine"])
    assert closure.compute_closure(["flambe", "mine", "theirs"]).versions


def test_a_script_that_requires_another_flambe_is_not_told_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        _requirements.check(["flambe>=9"], tmp_path)
    assert "pip install" not in str(raised.value)
    assert own_name.WHY in str(raised.value)
    _requirements.check(["flambe"], tmp_path)


# -- flambe -i -------------------------------------------------------------------------------------

# A build backend of a few lines: nothing has to be downloaded for it.
BACKEND = """
import pathlib, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = f"{NAME}-1-py3-none-any.whl"
    info = f"{NAME}-1.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as file:
        file.write(f"{NAME}/__init__.py")
        requires = "".join(f"Requires-Dist: {one}\\n" for one in REQUIRES)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: 1\\n{requires}")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        file.writestr(f"{info}/RECORD", "")
    return name
build_editable = build_wheel
"""
JOB = """
from flambe.compile import Component
class Job(Component):
    def run(self):
        print("ran")
        return False
"""


def extension(folder: Path, name: str, *requires: str, build: tuple[str, ...] = ()) -> Path:
    """Write an extension that requires something when it is installed, or when it is built."""
    tree = folder / name
    (tree / name).mkdir(parents=True)
    (tree / name / "__init__.py").write_text(JOB)
    (tree / "backend.py").write_text(f"NAME = {name!r}\nREQUIRES = {list(requires)}\n{BACKEND}")
    (tree / "pyproject.toml").write_text(
        f"[build-system]\nrequires = {list(build)}\n"
        'build-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1"\ndynamic = ["dependencies"]\n'
    )
    return tree


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that pip can find: the other flambe, and what requires it."""
    folder = tmp_path_factory.mktemp("index")
    tag = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    for name, version, requires in (("flambe", "9.9", ""), ("theirs", "1", "flambe>=9")):
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
            info = f"{name}-{version}.dist-info"
            file.writestr(f"{name}/__init__.py", "raise SystemExit('the other project')\n")
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            text += f"Requires-Dist: {requires}\n" if requires else ""
            for part, content in (("METADATA", text), ("WHEEL", tag), ("RECORD", "")):
                file.writestr(f"{info}/{part}", content)
    return folder


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, in which what this one has is importable too."""
    venv = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120
    )
    (site,) = venv.glob("lib/python*/site-packages")
    own = [path for path in sys.path if path.endswith("site-packages")]
    (site / "parent.pth").write_text("\n".join([*own, str(ROOT / "src")]) + "\n")
    return venv / "bin" / "python"


def flambe_i(
    python: Path, index: Path, folder: Path, name: str, origin: str
) -> subprocess.CompletedProcess[str]:
    (folder / "f.yaml").write_text(f"{name}: {origin}\n---\n!{name}.Job {{}}\n")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PIP_")},
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": os.devnull,
    }
    return subprocess.run(
        [str(python), "-m", "flambe", "f.yaml", "-i"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_an_extension_that_requires_flambe_is_installed(
    tmp_path: Path, python: Path, index: Path
) -> None:
    extension(tmp_path, "mine_fits", "flambe")
    done = flambe_i(python, index, tmp_path, "mine_fits", "./mine_fits")
    assert (done.returncode, done.stdout.split()) == (0, ["ran"]), done.stderr
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    assert not list(site.glob("flambe*"))


@pytest.mark.parametrize(
    ("name", "requires", "build", "needs"),
    [
        ("mine_new", ["flambe>=9"], [], "flambe>=9"),
        ("mine_deep", ["theirs"], [], "flambe>=9"),
        ("mine_built", [], ["flambe"], "flambe"),
    ],
)
def test_the_other_flambe_is_never_installed(
    tmp_path: Path, python: Path, index: Path, name: str, requires: list[str], build: list[str],
    needs: str,
) -> None:  # fmt: skip
    extension(tmp_path, name, *requires, build=tuple(build))
    done = flambe_i(python, index, tmp_path, name, f"./{name}")
    assert done.returncode == 2, done.stdout + done.stderr
    reason = f"extension '{name}' cannot be installed: it requires {needs}, and this is flambe"
    assert reason in done.stderr
    assert own_name.WHY in done.stderr
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    assert not list(site.glob("flambe*"))
    version = [str(python), "-m", "flambe", "--version"]
    assert subprocess.check_output(version, text=True).split() == ["flambe", __version__]


@pytest.mark.parametrize(
    "origin", ["flambe", "flambe==0.4.18", "Flambe[learn]", "flambe @ https://h/f.whl"]
)
def test_the_other_flambe_is_no_extension(tmp_path: Path, origin: str) -> None:
    with pytest.raises(ConfigError, match="whose name on PyPI belongs to another project"):
        install("mine", origin, tmp_path)
