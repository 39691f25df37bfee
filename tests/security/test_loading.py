"""Loading what a stranger made: it builds Components, runs nothing, and unpacks only so much."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flambe
from flambe.compile import Component, registry, yaml
from flambe.compile.reader.document import read_text
from flambe.compile.state import archive
from flambe.errors import ConfigError, FlambeError, StateError


class LoadedPart(Component):
    def __init__(self, size: int = 1) -> None:
        self.steps = size
        self.register_attrs("steps")


class LoadedWhole(Component):
    def __init__(self, part: LoadedPart) -> None:
        self.part = part


@pytest.fixture(autouse=True)
def _declarations() -> Iterator[None]:
    with registry.using(registry.Extensions()):
        yield


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    flambe.save(LoadedWhole(LoadedPart(3)), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An extension that is installed; importing it leaves a mark, and so does building."""
    package = tmp_path / "site" / "loaded_ext"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os, subprocess\n"
        "from subprocess import Popen\n"
        "from flambe.compile import Component\n"
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
        "class Net(Component):\n"
        "    def __init__(self, rate: float = 0.5, plain: object = None): self.rate = rate\n"
        "class Plain:\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield "loaded_ext"
    sys.modules.pop("loaded_ext", None)
    for classes in registry.CLASSES.by_tag.values():
        classes[:] = [cls for cls in classes if cls.__module__ != "loaded_ext"]


def packed(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, arcname=".")
    return path


# -- what is built ------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize(
    "config",
    [
        "psutil: ./psutil\n---\n!psutil.Popen\n- [sh, -c, 'touch {mark}']\n",
        "psutil: ./psutil\n---\n!LoadedWhole\npart: !psutil.Popen\n  - [sh, -c, 'touch {mark}']\n",
        "psutil: ./psutil\n---\nnames:\n  x: !psutil.Popen\n    - [sh, -c, 'touch {mark}']\n"
        "  y: !LoadedWhole\n    part: !@ x\nobject: !@ y\n",
        "numpy: ./numpy\n---\n!numpy.memmap ['{mark}', uint8, w+, 0, 8]\n",
    ],
)
def test_a_name_in_a_file_gives_no_right(
    saved: Path, tmp_path: Path, config: str, pack: bool
) -> None:
    mark = tmp_path / "pwned"
    (saved / "config.yaml").write_text(config.replace("{mark}", str(mark)))
    with pytest.raises(ConfigError, match="which you have not declared"):
        flambe.load(packed(saved) if pack else saved)
    assert not mark.exists()
    assert not {"psutil", "numpy"} & set(registry.extensions().declared)


def test_an_extension_is_imported_when_its_reader_declares_it(
    extension: str, saved: Path, tmp_path: Path
) -> None:
    config = f"{extension}: ./ext\n---\n!{extension}.Net\nrate: 0.25\nplain: !{extension}.Plain\n"
    for file in saved.rglob("*.*"):
        file.unlink()
    (saved / "config.yaml").write_text(config)
    (saved / "state.pkl").write_bytes(pickle.dumps({}))
    (saved / "part").rmdir()
    with pytest.raises(ConfigError, match=r"flambe\.load\(path, extensions=\['loaded_ext'\]\)"):
        flambe.load(saved)
    with pytest.raises(ConfigError, match="which you have not declared"):
        flambe.load(saved, extensions=["another_ext"])
    assert not (tmp_path / "imported").exists()
    assert flambe.load(saved, extensions=[extension]).rate == 0.25
    # It is a right of that one call.
    with pytest.raises(ConfigError, match="which you have not declared"):
        flambe.load(saved)
    assert flambe.load(saved, trust=True).rate == 0.25
    # What came of it is written with its header.
    flambe.save(flambe.load(saved, trust=True), tmp_path / "again")
    assert flambe.load(tmp_path / "again", extensions=[extension]).rate == 0.25


@pytest.mark.torch
def test_a_component_that_its_reader_imported_is_built(extension: str, saved: Path) -> None:
    config = f"{extension}: ./ext\n---\n!{extension}.Net\nrate: 0.25\n"
    (saved / "config.yaml").write_text(config)
    (saved / "part" / "state.pt").unlink()
    (saved / "state.pt").unlink()
    (saved / "state.pkl").write_bytes(pickle.dumps({}))
    __import__(extension)
    assert flambe.load(saved).rate == 0.25
    (saved / "config.yaml").write_text(f"{extension}: ./ext\n---\n!{extension}.Plain\n")
    with pytest.raises(ConfigError, match="which you have not declared"):
        flambe.load(saved)


def test_extensions_are_a_list(saved: Path) -> None:
    with pytest.raises(TypeError, match="a list"):
        flambe.load(saved, extensions="psutil")


@pytest.mark.torch
def test_the_extensions_of_a_run_are_declared(extension: str, saved: Path) -> None:
    (saved / "config.yaml").write_text(f"{extension}: ./ext\n---\n!{extension}.Net\n")
    (saved / "part" / "state.pt").unlink()
    (saved / "state.pt").unlink()
    (saved / "state.pkl").write_bytes(pickle.dumps({}))
    registry.extensions().declare({extension: "./ext"})
    assert flambe.load(saved).rate == 0.5


@pytest.mark.parametrize(
    "config",
    [
        "!Experiment\nname: x\npipeline: {}\n",
        "!LocalCluster\nname: x\n",
        "!LoadedWhole\npart: !LocalCluster\n  name: x\n",
        "!LoadedWhole\npart: !ray.FIFOScheduler\n",
    ],
)
def test_only_components_are_loaded(saved: Path, config: str) -> None:
    (saved / "config.yaml").write_text(config)
    with pytest.raises(ConfigError, match="is not a Component"):
        flambe.load(saved)


def test_looking_at_a_file_in_python_declares_what_saved_components_may_reach(
    extension: str, saved: Path
) -> None:
    """What is read to be run is the caller's own; what is loaded never adds to it."""
    yaml.load(f"{extension}: ./ext\n---\n!{extension}.Net\n")
    assert extension in registry.extensions().declared
    registry.extensions().declared.clear()
    (saved / "config.yaml").write_text(f"{extension}: ./ext\n---\n!{extension}.Net\n")
    with pytest.raises(FlambeError):
        flambe.load(saved)
    assert not registry.extensions().declared


# -- what a tag reaches -------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["Popen", "Component", "subprocess.Popen", "os._Environ"])
def test_a_tag_reaches_what_an_extension_defines(extension: str, tag: str, tmp_path: Path) -> None:
    document = read_text(f"{extension}: ./ext\n---\n!{extension}.{tag} [[touch, {tmp_path}/x]]\n")
    with pytest.raises(ConfigError, match="imports 'Popen'|imports 'Component'|has no '"):
        document.raise_problems()
    assert not (tmp_path / "x").exists()


def test_no_link_leads_into_python_itself(saved: Path) -> None:
    (saved / "config.yaml").write_text(
        "names:\n  part: !LoadedPart\n  whole: !LoadedWhole\n"
        "    part: !@ part.__init__.__globals__\nobject: !@ whole\n"
    )
    with pytest.raises(ConfigError, match="no link leads to __init__"):
        flambe.load(saved)


# -- archives -----------------------------------------------------------------------------------


def entry(file: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    file.addfile(info, io.BytesIO(data))


def written(path: Path, fill: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as file:
        fill(file)
    return path


def test_links_lead_no_file_out_of_an_archive(tmp_path: Path) -> None:
    """The chain of CVE-2025-4517, which gets round ``filter="data"`` of Python before 3.11.13."""
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    long = "d" * 247
    steps = "abcdefghijklmnop"

    def fill(file: tarfile.TarFile) -> None:
        path = ""
        for step in steps:
            entry(file, os.path.join(path, long), type=tarfile.DIRTYPE)
            entry(file, os.path.join(path, step), type=tarfile.SYMTYPE, linkname=long)
            path = os.path.join(path, long)
        link = os.path.join("/".join(steps), "l" * 254)
        entry(file, link, type=tarfile.SYMTYPE, linkname="../" * len(steps))
        entry(file, "escape", type=tarfile.SYMTYPE, linkname=link + "/../..")
        entry(file, "flaglink", type=tarfile.LNKTYPE, linkname="escape/victim.txt")
        entry(file, "flaglink", b"overwritten")

    with pytest.raises(StateError, match="not a regular file in its folder"):
        flambe.load(written(tmp_path / "evil.tar.gz", fill))
    assert victim.read_text() == "mine"


def test_an_archive_unpacks_to_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(1024**2)
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as file:
        for number in range(60):
            entry(file, f"{number}", zeros)
    monkeypatch.setattr(archive, "FREE_BYTES", 8 * 1024**2)
    with pytest.raises(StateError, match=r"it unpacks to more than 9 MiB\n.*trust=True"):
        flambe.load(tmp_path / "bomb.tar.gz")
    # Its owner may say that it is all right: then what it is counts.
    with pytest.raises(StateError, match=r"config\.yaml is missing"):
        flambe.load(tmp_path / "bomb.tar.gz", trust=True)


def test_a_header_counts_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FREE_BYTES", 8 * 1024**2)
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as file:
        entry(file, "x", pax_headers={"comment": "0" * 30 * 1024**2})
    with pytest.raises(StateError, match="it unpacks to more than 8 MiB"):
        flambe.load(tmp_path / "bomb.tar.gz")


def test_a_sparse_member_is_not_unpacked(tmp_path: Path) -> None:
    def fill(file: tarfile.TarFile) -> None:
        entry(file, "state.pt", type=tarfile.GNUTYPE_SPARSE)

    with pytest.raises(StateError, match="not a regular file"):
        flambe.load(written(tmp_path / "sparse.tar.gz", fill))


def test_an_archive_holds_so_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 50)

    def fill(file: tarfile.TarFile) -> None:
        for number in range(51):
            entry(file, f"{number}")

    with pytest.raises(StateError, match="holds more than 50 files"):
        flambe.load(written(tmp_path / "many.tar.gz", fill))


def test_an_archive_is_nested_so_deep(tmp_path: Path) -> None:
    def fill(file: tarfile.TarFile) -> None:
        entry(file, "/".join("d" * 3_000), type=tarfile.DIRTYPE)

    with pytest.raises(StateError, match="nested deeper than 50 folders"):
        flambe.load(written(tmp_path / "deep.tar.gz", fill))


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.SYMTYPE])
def test_only_plain_files_are_unpacked(saved: Path, tmp_path: Path, kind: bytes) -> None:
    def fill(file: tarfile.TarFile) -> None:
        file.add(saved / "config.yaml", arcname="config.yaml")
        entry(file, "state.pt", type=kind, linkname="/etc/passwd")

    with pytest.raises(StateError, match=r"'state\.pt' is not a regular file in its folder"):
        flambe.load(written(tmp_path / "kinds.tar.gz", fill))


def test_a_name_is_text(tmp_path: Path) -> None:
    def fill(file: tarfile.TarFile) -> None:
        entry(file, "a\udcff\x1b[31m")

    path = tmp_path / "name.tar.gz"
    with tarfile.open(path, "w:gz", encoding="utf-8", errors="surrogateescape") as file:
        fill(file)
    with pytest.raises(StateError, match="not a regular file"):
        flambe.load(path)


# -- folders ------------------------------------------------------------------------------------


@pytest.mark.torch
def test_a_pipe_is_not_waited_for(saved: Path) -> None:
    (saved / "state.pt").unlink()
    os.mkfifo(saved / "state.pt")
    with pytest.raises(StateError, match="not a regular file"):
        flambe.load(saved)


def test_a_pipe_as_a_version_counts_as_none(saved: Path) -> None:
    (saved / "version.txt").unlink()
    os.mkfifo(saved / "version.txt")
    assert flambe.load(saved).part.steps == 3


def test_a_version_that_is_no_text(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadedWhole, "_flambe_version", "1.0")
    (saved / "version.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning, match="was saved by version"):
        assert flambe.load(saved).part.steps == 3


def test_folders_in_folders(saved: Path) -> None:
    deep = saved.joinpath(*"d" * 60)
    deep.mkdir(parents=True)
    with pytest.raises(StateError, match="nested deeper than 50"):
        flambe.load(saved)


def test_links_in_links_in_links(saved: Path) -> None:
    lines = ["names:", "  s0: !LoadedPart", "    size: 1"]
    for number in range(1, 4_000):
        lines += [f"  s{number}: !LoadedPart", f"    size: !@ s{number - 1}"]
    (saved / "config.yaml").write_text("\n".join([*lines, "object: !@ s3999", ""]))
    with pytest.raises(StateError, match="nested too deeply"):
        flambe.load(saved)


# -- the file of a state ------------------------------------------------------------------------


@pytest.mark.torch
def test_a_state_is_not_compressed(saved: Path) -> None:
    """Torch would read it, and a file of 1 MB may hold 1 GB then."""
    with zipfile.ZipFile(saved / "state.pt") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(saved / "state.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(StateError, match="is damaged"):
        flambe.load(saved)


@pytest.mark.torch
def test_a_plain_state_takes_no_more_memory_than_it_needs(saved: Path) -> None:
    """Python's faster unpickler fills a table of as many entries as such a file names."""
    (saved / "state.pt").unlink()
    huge = b"r" + (2**31 - 1).to_bytes(4, "little")  # LONG_BINPUT
    (saved / "state.pkl").write_bytes(b"\x80\x04}" + huge + b".")
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert flambe.load(saved).part.steps == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def deep_pickle(levels: int) -> bytes:
    """Return a mapping whose key is tuples in tuples."""
    return b"\x80\x02})" + b"\x85" * levels + b"K\x01s."


@pytest.mark.torch
def test_tuples_in_tuples_do_not_end_the_process(saved: Path) -> None:
    (saved / "state.pt").unlink()
    (saved / "state.pkl").write_bytes(deep_pickle(300_000))
    with pytest.raises(StateError, match="is damaged"):
        flambe.load(saved)


@pytest.mark.torch
def test_tuples_in_tuples_do_not_end_the_process_in_a_file_of_torch(saved: Path) -> None:
    with zipfile.ZipFile(saved / "state.pt") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(saved / "state.pt", "w") as file:
        for name, data in members.items():
            file.writestr(name, deep_pickle(300_000) if name.endswith("data.pkl") else data)
    with pytest.raises(StateError, match="is damaged"):
        flambe.load(saved)


def test_states_with_many_tuples_are_read(tmp_path: Path) -> None:
    part = LoadedPart()
    part.steps = [(number, (number,)) for number in range(20_000)]  # type: ignore[assignment]
    flambe.save(part, tmp_path / "many")
    assert flambe.load(tmp_path / "many").steps == part.steps


@pytest.mark.torch
@pytest.mark.parametrize("name", ["state.pt", "state.pkl"])
def test_a_state_runs_nothing(saved: Path, tmp_path: Path, name: str) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    (saved / "state.pt").unlink()
    (saved / name).write_bytes(pickle.dumps({"x": Evil()}, protocol=4))
    with pytest.raises(StateError):
        flambe.load(saved)
    assert not (tmp_path / "pwned").exists()


def test_what_is_packed_as_ever_is_loaded(saved: Path, tmp_path: Path) -> None:
    flambe.save(flambe.load(saved), tmp_path / "again.tar.gz")
    assert flambe.load(tmp_path / "again.tar.gz").part.steps == 3
    plain = tmp_path / "plain.tar"
    plain.write_bytes(gzip.decompress((tmp_path / "again.tar.gz").read_bytes()))
    assert flambe.load(plain).part.steps == 3
