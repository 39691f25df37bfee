"""Components on disk: folders, archives, versions, and what is refused."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import flambe
from flambe.compile import Component, Link, Schema, yaml
from flambe.compile.build import Builder
from flambe.compile.persistence import VersionWarning
from flambe.compile.state.component_state import same
from flambe.errors import ComponentError, ConfigError, FlambeError, StateError
from flambe.nn import Module

FILES = ["config.yaml", "source.py", "state.pt", "version.txt"]


class SavedEncoder(Module):
    _flambe_version: ClassVar[str] = "1.2"

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(size, size)


class SavedModel(Module):
    def __init__(self, encoder: SavedEncoder, name: str = "model", extra: Any = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.name = name
        self.extra = extra
        self.register_attrs("extra")


class SavedTrainer(Component):
    def __init__(self, model: SavedModel, parts: Any = (), rate: float = 0.1) -> None:
        self.model = model
        self.parts = parts
        self.rate = rate
        self.optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
        self.steps = 0
        self.register_attrs("steps")


def trainer(**overrides: Any) -> SavedTrainer:
    schema = yaml.load(
        "!SavedTrainer\nmodel: !SavedModel\n  encoder: !SavedEncoder {size: 3}\n  name: heron\n"
        "parts: [!SavedEncoder ]\n"
    )
    made: SavedTrainer = schema(**overrides)
    made.steps = 7
    return made


def tree(folder: Path) -> dict[str, list[str]]:
    return {
        str(Path(place).relative_to(folder)): sorted(files)
        for place, _, files in os.walk(folder)
        if files
    }


def test_a_folder_for_each_component(tmp_path: Path) -> None:
    made = trainer()
    flambe.save(made, tmp_path / "saved")
    assert tree(tmp_path / "saved") == dict.fromkeys(
        (".", "model", "model/encoder", "parts/0"), FILES
    )
    assert (tmp_path / "saved/model/encoder/version.txt").read_text() == "1.2\n"
    assert (tmp_path / "saved/source.py").read_text().startswith("class SavedTrainer(Component):")
    again = flambe.load(tmp_path / "saved")
    assert type(again) is SavedTrainer
    assert again.steps == 7
    assert same(again.get_state(), made.get_state())
    assert yaml.dump(again) == yaml.dump(made)
    assert os.listdir(tmp_path) == ["saved"]


def test_a_component_below_is_loaded_on_its_own(tmp_path: Path) -> None:
    made = trainer()
    flambe.save(made, tmp_path / "saved")
    model = flambe.load(str(tmp_path / "saved" / "model"))
    assert type(model) is SavedModel
    assert model.name == "heron"
    assert same(model.get_state(), made.model.get_state())
    encoder = flambe.load(tmp_path / "saved/model/encoder")
    assert same(encoder.get_state(), made.model.encoder.get_state())
    assert same(flambe.load(tmp_path / "saved/parts/0").get_state(), made.parts[0].get_state())


def test_what_was_loaded_is_saved_again(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "one")
    flambe.save(flambe.load(tmp_path / "one"), tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert same(
        flambe.load(tmp_path / "one").get_state(), flambe.load(tmp_path / "two").get_state()
    )


def test_what_was_made_in_python_is_saved(tmp_path: Path) -> None:
    made = SavedTrainer(SavedModel(SavedEncoder(4), extra=[1, 2]), [SavedEncoder()], rate=0.5)
    flambe.save(made, tmp_path / "saved")
    again = flambe.load(tmp_path / "saved")
    assert again.rate == 0.5
    assert again.model.encoder.linear.in_features == 4
    assert same(again.get_state(), made.get_state())
    assert flambe.load(tmp_path / "saved/model").extra == [1, 2]


def test_an_argument_without_a_tag_is_named(tmp_path: Path) -> None:
    made = SavedTrainer(SavedModel(SavedEncoder()), parts=[torch.nn.Linear(1, 1)])
    with pytest.raises(StateError, match=r"!SavedTrainer parts\[0\].*torch.*Linear has no tag"):
        flambe.save(made, tmp_path / "saved")
    assert os.listdir(tmp_path) == []


# -- links --------------------------------------------------------------------------------------


def linked() -> Builder:
    return Builder(
        {
            "unrelated": Schema.of(SavedEncoder, size=9),
            "encoder": Schema.of(SavedEncoder, size=5),
            "model": Schema.of(SavedModel, encoder=Link("encoder"), name="far"),
            "train": Schema.of(
                SavedTrainer,
                model=Link("model"),
                parts=[Schema.of(SavedEncoder), Link("train", ("parts", 0)), Link("encoder")],
                rate=0.25,
            ),
        }
    )


def test_a_component_with_links_is_loadable_on_its_own(tmp_path: Path) -> None:
    made = linked().stage("train")
    flambe.save(made, tmp_path / "saved")
    text = (tmp_path / "saved/config.yaml").read_text()
    assert "!@ train" in text
    assert "unrelated" not in text
    again = flambe.load(tmp_path / "saved")
    assert same(again.get_state(), made.get_state())
    assert again.parts[0] is again.parts[1]
    assert again.parts[2] is again.model.encoder
    model = flambe.load(tmp_path / "saved/model")
    assert model.name == "far"
    assert same(model.get_state(), made.model.get_state())
    encoder = flambe.load(tmp_path / "saved/model/encoder")
    assert encoder.linear.in_features == 5


def test_the_links_are_written_as_they_were() -> None:
    made = linked().stage("train")
    assert yaml.dump(made) == (
        "!SavedTrainer\nmodel: !@ model\nparts:\n- !SavedEncoder\n- !@ train[parts][0]\n"
        "- !@ encoder\nrate: 0.25\n"
    )


def test_keys_of_any_kind_are_found_again(tmp_path: Path) -> None:
    parts = {"1": Schema.of(SavedEncoder, 3), "a b": Schema.of(SavedEncoder, 4)}
    names = {
        "encoder": Schema.of(SavedEncoder),
        "train": Schema.of(
            SavedTrainer,
            model=Schema.of(SavedModel, Link("encoder"), extra=None),
            parts=parts,
        ),
    }
    made = Builder(names).stage("train")
    flambe.save(made, tmp_path / "saved")
    assert flambe.load(tmp_path / "saved/parts/1").linear.in_features == 3
    assert flambe.load(tmp_path / "saved/parts/a b").linear.in_features == 4
    assert flambe.load(tmp_path / "saved/model").encoder.linear.in_features == 2


# -- archives -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["saved.tar.gz", "saved.tgz"])
def test_an_archive(tmp_path: Path, name: str) -> None:
    made = trainer()
    flambe.save(made, tmp_path / name)
    assert tarfile.is_tarfile(tmp_path / name)
    assert same(flambe.load(tmp_path / name).get_state(), made.get_state())
    assert os.listdir(tmp_path) == [name]


def member(archive: tarfile.TarFile, name: str, data: bytes = b"x", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data) if not fields else 0
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data) if not fields else None)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../evil", {}),
        ("a/../../evil", {}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "../../evil"}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "../../evil"}),
        ("device", {"type": tarfile.CHRTYPE}),
    ],
)
def test_an_archive_that_leaves_its_folder_is_refused(
    tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    path = tmp_path / "inner" / "evil.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        archive.add(tmp_path / "saved", arcname=".")
        member(archive, name, **fields)
    with pytest.raises(StateError, match=r"cannot unpack .*evil\.tar\.gz"):
        flambe.load(path)
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_that_is_cut(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved.tar.gz")
    data = (tmp_path / "saved.tar.gz").read_bytes()
    for length in (len(data) // 2, 20, 1, 0):
        (tmp_path / "saved.tar.gz").write_bytes(data[:length])
        with pytest.raises(StateError):
            flambe.load(tmp_path / "saved.tar.gz")
    (tmp_path / "saved.tar.gz").write_bytes(data[:300] + b"\0" * 50 + data[350:])
    with pytest.raises(FlambeError):
        flambe.load(tmp_path / "saved.tar.gz")


def test_a_configuration_that_is_no_text(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    config = tmp_path / "saved" / "config.yaml"
    config.write_bytes(b"\xec" + config.read_bytes())
    with pytest.raises(FlambeError, match=r"config\.yaml:1: not UTF-8"):
        flambe.load(tmp_path / "saved")


# -- overwriting --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["saved", "saved.tar.gz"])
def test_nothing_is_overwritten_unless_asked(tmp_path: Path, name: str) -> None:
    made = trainer()
    flambe.save(made, tmp_path / name)
    made.steps = 8
    with pytest.raises(StateError, match="already exists"):
        flambe.save(made, tmp_path / name)
    assert flambe.load(tmp_path / name).steps == 7
    flambe.save(made, tmp_path / name, overwrite=True)
    assert flambe.load(tmp_path / name).steps == 8
    assert os.listdir(tmp_path) == [name]


def test_whatever_is_there_can_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "folder.tar.gz").mkdir()
    for name in ("file", "link", "folder.tar.gz"):
        with pytest.raises(StateError, match="already exists"):
            flambe.save(trainer(), tmp_path / name)
        flambe.save(trainer(), tmp_path / name, overwrite=True)
        assert flambe.load(tmp_path / name).steps == 7
    assert (tmp_path / "folder" / "kept").exists()


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    made = trainer()
    flambe.save(made, tmp_path / "saved")
    made.steps = object()  # type: ignore[assignment]
    with pytest.raises(StateError, match="'steps' is a builtins.object"):
        flambe.save(made, tmp_path / "saved", overwrite=True)
    assert flambe.load(tmp_path / "saved").steps == 7
    assert os.listdir(tmp_path) == ["saved"]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [object(), np.array([{}]), lambda: 0], ids=lambda value: type(value).__name__
)
def test_state_that_would_need_pickle_is_refused(tmp_path: Path, value: Any) -> None:
    made = trainer()
    made.model.extra = {"a": [value]}
    with pytest.raises(StateError, match=r"cannot save SavedModel at 'model': its .extra\['a'\]"):
        flambe.save(made, tmp_path / "saved")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "value",
    [10**30, -(10**400), "🐦", float("nan"), (1, (2,)), {1: {None: [True]}}, ""],
    ids=lambda value: type(value).__name__,
)
def test_state_that_is_kept_is_read_back(tmp_path: Path, value: Any) -> None:
    made = trainer()
    made.model.extra = value
    flambe.save(made, tmp_path / "saved")
    assert repr(flambe.load(tmp_path / "saved").model.extra) == repr(value)


class Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


@pytest.mark.parametrize("kind", ["torch", "pickle", "text", "empty", "folder"])
def test_a_malicious_or_broken_state_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    flambe.save(trainer(), "saved")
    state = tmp_path / "saved" / "model" / "state.pt"
    if kind == "torch":
        torch.save({"extra": Malicious()}, state)
    elif kind == "folder":
        state.unlink()
        state.mkdir()
    else:
        state.write_bytes({"pickle": pickle.dumps(Malicious()), "text": b"hello"}.get(kind, b""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(StateError, match=r"state in .*saved/model|no state for .*'model'"):
            flambe.load("saved")
    assert not (tmp_path / "evil").exists()


def test_the_refusal_names_what_was_found(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    torch.save({"steps": Malicious()}, tmp_path / "saved" / "state.pt")
    with pytest.raises(StateError) as raised:
        flambe.load(tmp_path / "saved")
    assert str(raised.value) == (
        f"the state in {tmp_path / 'saved'} is refused: it holds more than tensors and plain "
        f"values ({os.system.__module__}.system)"
    )


def test_a_state_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    for value in (3, [1, 2], torch.zeros(2)):
        torch.save(value, tmp_path / "saved" / "state.pt")
        with pytest.raises(StateError):
            flambe.load(tmp_path / "saved")


def test_a_configuration_that_is_malicious_is_refused(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    for text in ("!os.system touch evil\n", "!!python/object/apply:os.system [ls]\n"):
        (tmp_path / "saved" / "config.yaml").write_text(text)
        with pytest.raises(ConfigError):
            flambe.load(tmp_path / "saved")
    (tmp_path / "saved" / "config.yaml").write_text("a: b\n")
    with pytest.raises(StateError, match="does not say how to build a component"):
        flambe.load(tmp_path / "saved")


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    for text in (
        "!torch.Linear [1, 2]\n",
        "names: 3\nobject: !@ a\n",
        "names: {a: 3}\nobject: !@ a\n",
        "names: {a: !g [1]}\nobject: !@ a\n",
        "names: {}\nobject: !@ a\n",
    ):
        (tmp_path / "saved" / "config.yaml").write_text(text)
        with pytest.raises((StateError, ConfigError)):
            flambe.load(tmp_path / "saved")


def test_there_is_nothing_to_load(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.tar.gz"):
        with pytest.raises(StateError, match=r"no saved component at .*config\.yaml is missing"):
            flambe.load(path)


def test_a_folder_that_is_missing_or_left_over_is_told(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    (tmp_path / "saved/model/encoder").rename(tmp_path / "saved/model/other")
    with pytest.raises(StateError) as raised:
        flambe.load(tmp_path / "saved")
    assert "no component at 'model/other'" in str(raised.value)
    assert "no state for the component at 'model/encoder'" in str(raised.value)


# -- versions -----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    flambe.save(trainer(parts=()), tmp_path / "saved")
    yield tmp_path / "saved"
    SavedEncoder._flambe_version = "1.2"


def test_another_version_warns(saved: Path) -> None:
    SavedEncoder._flambe_version = "2.0"
    with pytest.warns(VersionWarning) as caught:
        assert flambe.load(saved).steps == 7
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "SavedEncoder at 'model/encoder' was saved by version 1.2" in text
    assert "is loaded by version 2.0" in text
    assert str(saved / "model/encoder/source.py") in text
    with pytest.warns(VersionWarning, match="^SavedEncoder was saved by version 1.2"):
        flambe.load(saved / "model" / "encoder")


@pytest.mark.parametrize("version", ["1.2", "0.0.0"])
def test_the_same_version_or_none_does_not(saved: Path, version: str) -> None:
    SavedEncoder._flambe_version = version
    assert flambe.load(saved).steps == 7


def test_a_version_file_that_is_gone_counts_as_none(saved: Path) -> None:
    (saved / "model/encoder/version.txt").unlink()
    assert flambe.load(saved).steps == 7


# -- extensions ---------------------------------------------------------------------------------


def test_a_component_of_an_extension_is_loaded_in_a_new_process(tmp_path: Path) -> None:
    import subprocess

    yaml.load("heron_ext: ./ext/heron_ext\n---\n- !heron_ext.HeronNest\n")
    heron = importlib.import_module("heron_ext")
    flambe.save(heron.HeronWorker(heron.HeronNest(5)), tmp_path / "python")
    schema = yaml.load(
        "heron_ext: ./ext/heron_ext\n---\n!heron_ext.HeronWorker\nnest: !HeronNest\n"
    )
    flambe.save(schema(), tmp_path / "file")
    load = "flambe.load(p, extensions=['heron_ext'])"
    code = f"import flambe, sys; print(*({load}.nest.eggs for p in sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "python"), str(tmp_path / "file")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(heron.__file__ or "").parent.parent)},
    )
    assert done.stdout == "5 2\n", done.stderr


def test_a_component_that_cannot_be_built_again(tmp_path: Path) -> None:
    flambe.save(trainer(), tmp_path / "saved")
    config = tmp_path / "saved" / "config.yaml"
    config.write_text(config.read_text().replace("size: 3", "size: a"))
    with pytest.raises((ComponentError, ConfigError)) as raised:
        flambe.load(tmp_path / "saved")
    assert str(config) in str(raised.value)


class SavedTally(Component):
    def __init__(self) -> None:
        self.held: Any = None
        self.register_attrs("held")


def tally(held: Any) -> SavedTally:
    made = SavedTally()
    made.held = held
    return made


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide torch, as on a host that does not have it."""
    monkeypatch.setitem(sys.modules, "torch", None)


PLAIN: dict[Any, Any] = {1: (1, [2.5, None]), "x": {True: float("inf"), None: 2**80}, "é": "\ud800"}


@pytest.mark.usefixtures("no_torch")
def test_plain_values_are_kept_as_they_are_without_torch(tmp_path: Path) -> None:
    flambe.save(tally(PLAIN), tmp_path / "one")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["config.yaml", "source.py", "state.pkl", "version.txt"]
    again = flambe.load(tmp_path / "one").held
    assert again == PLAIN
    assert type(again[1]) is tuple


def test_what_was_saved_without_torch_is_read_with_it(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        flambe.save(tally(PLAIN), tmp_path / "one")
    assert flambe.load(tmp_path / "one").held == PLAIN


@pytest.mark.usefixtures("no_torch")
def test_tensors_need_torch(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        flambe.save(tally(torch.ones(1)), tmp_path / "one")
    with pytest.raises(StateError, match=r"one needs torch: pip install .*\[learn\]'"):
        flambe.load(tmp_path / "one")


class Reaching:
    def __reduce__(self) -> Any:
        return os.mkdir, ("reached",)


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps({"held": Reaching()}), r"is refused: .* \(posix.mkdir\)"),
        (pickle.dumps({"held": Path()}), r"is refused: .* \(pathlib"),
        (pickle.dumps({"held": 1})[:-4], "cannot read the state"),
        (b"", "cannot read the state"),
        (pickle.dumps(3), "cannot read the state"),
    ],
)
def test_a_plain_state_calls_nothing(
    data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flambe.save(SavedTally(), "one")
    Path("one/state.pkl").write_bytes(data)
    with pytest.raises(StateError, match=message):
        flambe.load("one")
    assert not Path("reached").exists()


def test_a_torch_that_can_be_got_round_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flambe.save(tally(torch.ones(1)), tmp_path / "one")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(StateError, match=r"state.pt is not read\n  .*'torch>=2.6'"):
        flambe.load(tmp_path / "one")
