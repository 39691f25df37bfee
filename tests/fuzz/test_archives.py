"""Broken and hostile saved components give clean errors: folders and archives, mutated.

The variables are those of ``test_fuzz``; a tenth of its number of inputs is made here.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import io
import os
import pickle
import random
import resource
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import flambe
from flambe.compile import Component, registry, yaml
from flambe.compile.state.codec import MARK, unblob
from flambe.compile.state.encoding import Encoder
from flambe.errors import FlambeError
from flambe.nn import Module
from tests.fuzz.test_fuzz import COUNT, ONLY, SEED, limited

pytestmark = pytest.mark.integration

SHARE = 10
SHARD = 250
SECONDS = 20.0  # of the processor's time, for one input
MORE_MEMORY = 1_500_000  # KiB that all inputs of a process may take

# What a stranger may think of: names, kinds and sizes of members, and what stands in their files.
NAMES = ["../evil", "/evil", "a/../../evil", "./x", "state.pt", "config.yaml", "d/" * 200, "\udcff"]
NAMES += ["part/state.pt", "part", "version.txt", "a\nb", "", ".", "..", "//", "x" * 5000]
KINDS = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
KINDS += [tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, b"z"]
CONFIGS = [
    "psutil: x\n---\n!psutil.Popen [[sh, -c, 'touch {mark}']]\n",
    "!FuzzedWhole\npart: !@ part\n",
    "names: {a: !FuzzedPart {size: !@ b}, b: !FuzzedPart {size: !@ a}}\nobject: !@ a\n",
    "names: {a: !FuzzedPart {size: 1}}\nobject: !@ a.__class__.__mro__\n",
    "names: 3\nobject: !@ a\n",
    "!Experiment {name: x, pipeline: {}}\n",
    "!Script {script: 'touch {mark}'}\n",
    "!torch.Linear {in_features: 2, out_features: 2}\n",
    "# loaded with the component above only: no\n",
    "&a [*a]\n",
    "[" * 5000,
    "\x00",
    "",
]


def encodable() -> list[Any]:
    """Return values of each kind that is written in a form of its own."""
    return [
        *(
            {1, "a"},
            b"bytes",
            Path("a"),
            datetime.datetime(2020, 1, 1),
            Decimal("1.5"),
            {(1, 2): 3},
        ),
        *(
            np.arange(6.0).reshape(2, 3),
            np.float32(1),
            np.array([(1, "x")], [("a", "i4"), ("b", "U2")]),
        ),
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.Categorical(["u", "v"])}),
        pd.Series(pd.date_range("2020", periods=2, tz="Europe/Berlin"), name="s"),
    ]


def mutated(value: Any, rng: random.Random) -> Any:
    """Return an encoded value with something in it changed for what a stranger may think of."""
    if rng.random() < 0.15:
        return rng.choice([*ODD, {MARK: rng.choice(KINDS_OF_VALUES), "value": rng.choice(ODD)}])
    if isinstance(value, dict):
        changed = {key: mutated(child, rng) for key, child in value.items()}
        if rng.random() < 0.1 and changed:
            changed.pop(rng.choice(list(changed)))
        return changed
    if isinstance(value, list | tuple):
        return type(value)(mutated(child, rng) for child in value)
    return value


ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        10**15,
        10**400,
        1e308,
        float("nan"),
        "",
        "O",
        "T",
        "|V99999999999",
        "x" * 300,
    ),
    *([], [[]], [10**12], [-1], {}, b"x", "../../etc/passwd", "dateutil/etc/passwd", "<M8[x]"),
]
KINDS_OF_VALUES = [
    *("set", "dict", "deque", "datetime", "Path", "Random", "pickle", "os.system", "defaultdict"),
    *("numpy.ndarray", "numpy.generic", "numpy.Generator", "torch.Generator", "numpy.load"),
    *(
        "pandas.DataFrame",
        "pandas.Series",
        "pandas.Index",
        "pandas.RangeIndex",
        "pandas.MultiIndex",
    ),
    *("pandas.dates", "pandas.texts", "pandas.periods", "pandas.read_pickle", "pandas.categories"),
]


class FuzzedPart(Component):
    def __init__(self, size: Any = 2) -> None:
        self.steps = size
        self.table = {"a": [1, 2.5, None], "b": ("x", True), "c": encodable()}
        self.register_attrs("steps", "table")


class FuzzedNet(Module):
    def __init__(self) -> None:
        import torch

        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 3))
        self.register_buffer("seen", torch.zeros(3))


class FuzzedWhole(Component):
    _flambe_version = "1.2"

    def __init__(self, part: FuzzedPart) -> None:
        import torch

        self.part = part
        self.net = FuzzedNet()
        self.linear = torch.nn.Linear(3, 2)
        self.steps = 4
        self.register_attrs("steps")


@cache
def original() -> dict[str, bytes]:
    """Return the files of a saved component."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "saved")
        schema = yaml.load("!FuzzedWhole\npart: !FuzzedPart\n  size: 3\n")
        flambe.save(schema(), folder)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


# -- how files are mutated ----------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes that were changed, cut, put in or repeated."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.choice([1, 8, 200])]
            case 2:
                changed[at:at] = rng.randbytes(rng.choice([1, 4, 60]))
            case 3:
                del changed[at:]
            case 4:
                changed[at:at] = changed[at : at + 64] * rng.randint(1, 4)
    return bytes(changed)


def _plainly(value: Any) -> Any:
    """Return an encoded value as it is written without torch."""
    if isinstance(value, dict):
        return {key: _plainly(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plainly, value))
    return bytes(unblob(value)) if type(value).__name__ == "Tensor" else value


ENCODED_PLAIN = pickle.dumps(_plainly(Encoder("").encode(encodable(), "")))


def plain_state(rng: random.Random) -> bytes:
    values: list[Any] = [
        *(3, "x", [1], {"a": 1}, None, (1, 2), 10**400, float("nan"), b"x", {1, 2}, "\udcff", -1),
        *({(1, 2): 3}, [[[[]]]], True, {}, {"steps": {"steps": {}}}),
    ]
    names = ["steps", "table", "linear", "__class__", "part", "x\ny"]
    state = {rng.choice(names): rng.choice(values) for _ in range(rng.randint(0, 4))}
    if rng.random() < 0.4:
        plain = pickle.loads(ENCODED_PLAIN)
        state = {"steps": 3, "table": mutated(plain, rng)}
    data = pickle.dumps(rng.choice([state, *values]), protocol=rng.randint(0, 5))
    return damaged(data, rng) if rng.random() < 0.5 else data


def torch_state(rng: random.Random) -> bytes:
    import torch

    values: list[Any] = [
        *(torch.zeros(2, 3), torch.zeros(3), torch.zeros(0), torch.zeros(2, 3).to_sparse(), 3, {}),
        *(torch.zeros(2, 3, dtype=torch.complex64), torch.zeros(2, 3, dtype=torch.bool), [], None),
        torch.zeros(2, 3, device="meta"),
    ]
    state = {
        "steps": rng.choice([4, *values]),
        "linear": {"weight": rng.choice(values), "bias": rng.choice(values)},
        "weight": rng.choice(values),
        "seen": rng.choice(values),
    }
    if rng.random() < 0.5:
        state = {name: state[name] for name in ("weight", "seen")}
    elif rng.random() < 0.7:
        state = {"steps": 3, "table": mutated(Encoder("").encode(encodable(), ""), rng)}
    buffer = io.BytesIO()
    torch.save(rng.choice([state, state, state, *values]), buffer)
    return buffer.getvalue()


def zipped_again(data: bytes, rng: random.Random) -> bytes:
    """Return a zip file whose members were changed, or packed in another way."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if rng.random() < 0.4:
                content = damaged(content, rng)
            kind = rng.choice([zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED])
            if rng.random() < 0.95:
                new.writestr(member.filename, content, kind)
    return buffer.getvalue()


def change(files: dict[str, bytes], rng: random.Random, mark: str) -> None:
    """Change one file of a saved component."""
    name = rng.choice(sorted(files))
    match rng.randrange(8):
        case 0:
            files[name] = damaged(files[name], rng)
        case 1:
            files.pop(name)
        case 2:
            files[rng.choice(["", "part/"]) + "state.pkl"] = plain_state(rng)
        case 3:
            files[rng.choice(["", "part/", "net/", "net/"]) + "state.pt"] = torch_state(rng)
        case 4:
            files["state.pt"] = zipped_again(original()["state.pt"], rng)
        case 5:
            files["config.yaml"] = rng.choice(CONFIGS).replace("{mark}", mark).encode()
        case 6:
            files[f"{rng.choice(['part/', 'x/', 'part/x/'])}{name}"] = files[name]
        case 7:
            files[rng.choice(["version.txt", "source.py"])] = rng.randbytes(200)


def hostile(file: tarfile.TarFile, rng: random.Random) -> None:
    """Add a member that no archive of ours has."""
    info = tarfile.TarInfo(rng.choice(NAMES))
    info.type = rng.choice(KINDS)
    info.linkname = rng.choice(["../../evil", "/etc/passwd", ".", "state.pt", "config.yaml"])
    data = rng.randbytes(rng.choice([0, 10, 600]))
    info.size = len(data)
    with contextlib.suppress(ValueError, UnicodeError, tarfile.TarError):
        file.addfile(info, io.BytesIO(data))


def archive_of(files: dict[str, bytes], rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    formats = [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice(formats)) as file:
        for name, data in files.items():
            if rng.random() < 0.05:
                hostile(file, rng)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    if rng.random() < 0.3:
        data = damaged(data, rng)
    if rng.random() < 0.8:
        data = gzip.compress(data, compresslevel=1)
        if rng.random() < 0.2:
            data = damaged(data, rng)
    return data


def written(number: int, folder: Path) -> Path:
    """Write an input, which is made from its number and the seed alone; return where it is."""
    rng = random.Random(f"{SEED}:archive:{number}")
    files = dict(original())
    for _ in range(rng.randint(0, 3)):
        if files:
            change(files, rng, str(folder / "evil"))
    inner = folder / "inner"
    inner.mkdir()
    if rng.random() < 0.5:
        path = inner / "saved.tar.gz"
        path.write_bytes(archive_of(files, rng))
        return path
    path = inner / "saved"
    path.mkdir()
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    if rng.random() < 0.1:
        victim = path / rng.choice(["state.pt", "config.yaml", "version.txt", "part/state.pt"])
        victim.unlink(missing_ok=True)
        rng.choice([os.mkfifo, lambda at: os.symlink("/dev/zero", at), os.mkdir])(victim)
    return path


# -- what comes of it ---------------------------------------------------------------------------


def judge(path: Path) -> bool:
    """Return whether it was loaded; anything but a clean error is raised."""
    declared = dict(registry.extensions().declared)
    try:
        with limited(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = flambe.load(path)
    except FlambeError as error:
        assert str(error).strip()
        assert len(str(error)) < 20_000
        return False
    assert isinstance(loaded, Component)
    assert registry.extensions().declared == declared
    return True


def shards() -> list[range]:
    if ONLY:
        return [range(int(ONLY), int(ONLY) + 1)]
    count = max(1, COUNT // SHARE)
    return [range(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]


@pytest.mark.parametrize("numbers", shards(), ids=str)
def test_mutated_components_are_loaded_or_give_a_clean_error(
    numbers: range, tmp_path: Path
) -> None:
    failures = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        folder = tmp_path / "input"
        folder.mkdir()
        path = written(number, folder)
        try:
            judge(path)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failures.append(f"{number}: {type(error).__name__}: {error}"[:500])
        if sorted(os.listdir(folder)) != ["inner"] or len(os.listdir(folder / "inner")) != 1:
            failures.append(f"{number}: it wrote {os.listdir(folder)}")
        shutil.rmtree(folder)
    assert not failures, "\n".join(failures[:20])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MORE_MEMORY


def test_inputs_are_of_both_kinds(tmp_path: Path) -> None:
    outcomes: list[bool] = []
    check: Callable[[Path], bool] = judge
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes.append(check(written(number, folder)))
    assert {True, False} == set(outcomes)
