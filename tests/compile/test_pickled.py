"""State that needs pickle: asked for, in files of its own, read only where it is trusted."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

import flambe
from flambe.compile import Component, persistence
from flambe.compile.state import pickled
from flambe.compile.state.file_writer import FileWriter
from flambe.compile.state.pickled import Trust
from flambe.errors import StateError, UnsavableError

ran: list[str] = []


class PickledThing:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return _made, (self.value,)


def _made(value: int) -> PickledThing:
    ran.append(f"made {value}")
    return PickledThing(value)


class PickledPart(Component):
    def __init__(self) -> None:
        self.clf: Any = None
        self.steps = 0
        self.register_attrs("clf", pickle=True)
        self.register_attrs("steps")


class PickledWhole(Component):
    def __init__(self, part: PickledPart) -> None:
        self.part = part


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PickledWhole:
    monkeypatch.setenv("FLAMBE_HOME", str(tmp_path / "home"))
    ran.clear()
    whole = PickledWhole(PickledPart())
    whole.part.clf, whole.part.steps = PickledThing(7), 3
    return whole


@pytest.fixture
def saved(whole: PickledWhole, tmp_path: Path) -> Path:
    flambe.save(whole, tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.torch
def test_it_is_a_file_of_its_own(saved: Path) -> None:
    assert sorted(os.listdir(saved / "part")) == [
        *("clf.pickle", "config.yaml", "source.py", "state.pt", "version.txt")
    ]
    assert ran == []


def test_it_is_read_where_it_is_trusted(saved: Path) -> None:
    with pytest.raises(StateError) as raised:
        flambe.load(saved)
    assert str(raised.value) == (
        "PickledPart: 'clf' is a pickle, which can run code as you, and is not read\n"
        "  if you trust who wrote it:   flambe.load(path, trust=True)"
    )
    assert ran == []
    loaded = flambe.load(saved, trust=True)
    assert (loaded.part.clf.value, loaded.part.steps) == (7, 3)
    assert ran == ["made 7"]


def test_in_a_process_it_is_state_as_any_other(whole: PickledWhole) -> None:
    other = PickledWhole(PickledPart())
    other.load_state(whole.get_state())
    assert other.part.clf is whole.part.clf


@pytest.mark.parametrize("name", ["saved.tar.gz", "saved"])
def test_an_archive_of_a_stranger_is_not_unpickled(
    whole: PickledWhole, tmp_path: Path, name: str
) -> None:
    flambe.save(whole, tmp_path / name)
    with pytest.raises(StateError, match="trust=True"):
        flambe.load(tmp_path / name)
    assert flambe.load(tmp_path / name, trust=True).part.clf.value == 7
    assert ran == ["made 7"]


def written(whole: PickledWhole, folder: Path, key: bytes) -> None:
    persistence.write(whole, FileWriter(folder), key=key)


def test_a_run_reads_what_was_written_with_its_key(whole: PickledWhole, tmp_path: Path) -> None:
    written(whole, tmp_path / "saved", b"mine")
    values = persistence.read(str(tmp_path / "saved"), whole, trust=Trust(key=b"mine"))
    assert values["part"]["clf"].value == 7
    for key in (b"yours", b""):
        with pytest.raises(StateError, match="is a pickle, which can run code as you"):
            persistence.read(str(tmp_path / "saved"), whole, trust=Trust(key=key))
    # Who calls flambe.load has said nothing, whoever wrote it.
    with pytest.raises(StateError, match="trust=True"):
        flambe.load(tmp_path / "saved")


def evil(folder: Path) -> None:
    folder.write_bytes(b"cbuiltins\nexec\n(Vopen('evil','w')\ntR.")


def test_a_file_that_was_swapped_is_not_read(
    whole: PickledWhole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(whole, tmp_path / "saved", b"mine")
    evil(tmp_path / "saved" / "part" / "clf.pickle")
    for trust in (Trust(key=b"mine"), Trust(everybody=True)):
        with pytest.raises(StateError, match=r"'clf' is damaged: .*clf\.pickle is not what was"):
            persistence.read(str(tmp_path / "saved"), whole, trust=trust)
    (tmp_path / "saved" / "part" / "clf.pickle").unlink()
    with pytest.raises(StateError, match="'clf' cannot be read"):
        persistence.read(str(tmp_path / "saved"), whole, trust=Trust(everybody=True))
    assert not (tmp_path / "evil").exists()


def test_a_code_is_for_one_file(whole: PickledWhole, tmp_path: Path) -> None:
    """Another pickle of the same user does not become trusted in the place of one."""
    written(whole, tmp_path / "one", b"mine")
    written(whole, tmp_path / "two", b"yours")
    for name in ("clf.pickle.mac",):
        code = (tmp_path / "one" / "part" / name).read_bytes()
        whole.part.clf = PickledThing(8)
        written(whole, tmp_path / "three", b"yours")
        (tmp_path / "three" / "part" / name).write_bytes(code)
    with pytest.raises(StateError, match="is not read"):
        persistence.read(str(tmp_path / "three"), whole, trust=Trust(key=b"mine"))
    for code in (b"", b"\xff" * 64, b"0" * 10_000):
        (tmp_path / "two" / "part" / "clf.pickle.mac").write_bytes(code)
        with pytest.raises(StateError, match="is not read"):
            persistence.read(str(tmp_path / "two"), whole, trust=Trust(key=b"mine"))
    assert ran == []


def test_a_folder_from_another_machine_can_be_trusted(whole: PickledWhole, tmp_path: Path) -> None:
    written(whole, tmp_path / "run" / "saved", b"of another machine")
    key = pickled.user_key()
    assert key == pickled.user_key()
    assert (tmp_path / "home" / "pickle.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StateError) as raised:
        persistence.read(str(tmp_path / "run" / "saved"), whole, trust=Trust(key=key))
    assert f'python -c "import flambe; flambe.trust({str(tmp_path / "run/saved/part")!r})"' in str(
        raised.value
    )
    assert flambe.trust(tmp_path / "run") == 1
    values = persistence.read(str(tmp_path / "run" / "saved"), whole, trust=Trust(key=key))
    assert values["part"]["clf"].value == 7
    with pytest.raises(StateError, match="is not a folder"):
        flambe.trust(tmp_path / "none")


def test_a_pickle_that_raises_is_named(whole: PickledWhole, tmp_path: Path) -> None:
    flambe.save(whole, tmp_path / "saved")
    monkey = pytest.MonkeyPatch()
    monkey.delattr(f"{__name__}._made")
    try:
        with pytest.raises(StateError, match="PickledPart: 'clf' cannot be unpickled: "):
            flambe.load(tmp_path / "saved", trust=True)
    finally:
        monkey.undo()


@pytest.mark.parametrize("value", [threading.Lock(), lambda: 0])
def test_what_cannot_be_pickled_is_named(whole: PickledWhole, tmp_path: Path, value: Any) -> None:
    whole.part.clf = value
    with pytest.raises(UnsavableError) as raised:
        flambe.save(whole, tmp_path / "saved")
    text = str(raised.value)
    assert text.startswith("cannot save PickledPart at 'part': its 'clf' is a ")
    assert "cannot be pickled" in text
    assert '_transient = ("clf",)' in text
    assert not (tmp_path / "saved").exists()


def test_names_are_those_of_attributes() -> None:
    for name in ("a/b", "", "a.b", "../a"):
        with pytest.raises(ValueError, match="names of attributes"):
            PickledPart().register_attrs(name, pickle=True)
