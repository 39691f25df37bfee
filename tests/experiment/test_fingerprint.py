"""What counts as the code of a component, and what does not."""

from __future__ import annotations

import itertools
import linecache
import sys
import types
from pathlib import Path

import pytest

from flambe.experiment.variants.fingerprint import Sources

_numbers = itertools.count()

NET = '''
"""About it."""
import math
import numpy as np
from flambe.compile import Component
from NAME.tools import scale
from NAME import tools as t
import NAME.deep.inner

STEPS = 5
UNUSED = 1

def helper(x):
    return inner(x) + STEPS

def inner(x):
    return x

class Base(Component):
    def start(self):
        return 1

class Net(Base):
    """A net."""
    def run(self):
        # One step.
        from NAME.deep import late as l
        import NAME.deep.later
        l.do(NAME.deep.later.there())
        return helper(scale(2)) > t.shift(1) + NAME.deep.inner.turn() + np.pi

    @classmethod
    def made(cls):
        return cls()

class Other(Component):
    def run(self):
        return 2
'''
TOOLS = (
    "def scale(x):\n    return x * 2\n\ndef shift(x):\n    return x\n\ndef unused():\n    pass\n"
)
INNER = "def turn():\n    return 1\n"


class Package:
    """A package of a user, whose files are changed while its modules stay imported."""

    def __init__(self, root: Path) -> None:
        self.name = f"coded{next(_numbers)}"
        self.folder = root / self.name
        (self.folder / "deep").mkdir(parents=True)
        self.write("__init__.py", NET)
        self.write("tools.py", TOOLS)
        self.write("deep/__init__.py", "")
        self.write("deep/inner.py", INNER)
        self.write("deep/late.py", "def do(x):\n    return x\n")
        self.write("deep/later.py", "def there():\n    return 1\n")

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text.replace("NAME", self.name), encoding="utf-8")

    def change(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def fingerprint(self, name: str = "Net") -> str:
        return Sources().fingerprint(f"{self.name}:{name}")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Package(tmp_path)
    __import__(made.name)
    return made


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("__init__.py", "        # One step.\n", "\n        # Two\n\n"),
        ("__init__.py", '    """A net."""\n', '    """A network,\n    of course."""\n'),
        ("__init__.py", '"""About it."""', ""),
        ("__init__.py", "return helper(scale(2)) >", "return  (helper( scale(2) )) \\\n  >"),
        ("__init__.py", "UNUSED = 1", "UNUSED = 2"),
        ("__init__.py", "        return 2", "        return 3"),
        ("tools.py", "    pass", "    return 1"),
    ],
)
def test_what_changes_nothing(package: Package, file: str, old: str, new: str) -> None:
    before = package.fingerprint()
    package.change(file, old, new)
    assert package.fingerprint() == before != ""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("__init__.py", "scale(2)", "scale(3)"),
        ("__init__.py", "return 1", "return 2"),  # its base
        ("__init__.py", "STEPS = 5", "STEPS = 6"),  # a constant that a function uses
        ("__init__.py", "    return x\n", "    return -x\n"),  # what a function calls
        ("__init__.py", "return cls()", "return cls"),
        ("__init__.py", "\nclass Other", "\nNet.depth = 3\n\nclass Other"),
        ("__init__.py", "import numpy as np", "import math as np"),
        ("tools.py", "x * 2", "x * 3"),  # imported by name
        ("tools.py", "    return x\n", "    return x + 1\n"),  # through its module
        ("deep/inner.py", "return 1", "return 2"),  # through a package
        ("deep/late.py", "return x", "return x + 1"),  # imported where it is used
        ("deep/later.py", "return 1", "return 2"),
    ],
)
def test_what_changes_it(package: Package, file: str, old: str, new: str) -> None:
    before = package.fingerprint()
    package.change(file, old, new)
    assert package.fingerprint() != before


def test_a_version_stands_for_the_code_of_its_class(package: Package) -> None:
    plain = package.fingerprint()
    package.change("__init__.py", '"""A net."""', '_flambe_version = "1.0"')
    first = package.fingerprint()
    package.change("__init__.py", "scale(2)", "scale(3)")
    assert package.fingerprint() == first != plain
    package.change("__init__.py", '"1.0"', '"1.1"')
    assert package.fingerprint() != first
    # The default is no version.
    package.change("__init__.py", '"1.1"', '"0.0.0"')
    before = package.fingerprint()
    package.change("__init__.py", "scale(3)", "scale(4)")
    assert package.fingerprint() != before


def test_a_factory_is_the_code_of_its_class(package: Package) -> None:
    assert package.fingerprint("Net.made") == package.fingerprint("Net")
    assert package.fingerprint("Other") != package.fingerprint("Net")


def test_what_is_installed_and_what_has_no_source_does_not_count() -> None:
    for target in (
        "torch.nn:Linear", "flambe.learn:Trainer", "json:JSONDecoder", "builtins:dict", "gone:Net",
    ):  # fmt: skip
        assert Sources().fingerprint(target) == ""
    # An extension does, wherever it is.
    assert Sources(["pluggy"]).fingerprint("pluggy:PluginManager") != ""


def test_circles_and_stars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "round_one.py").write_text(
        "from round_two import *\n\nclass Net:\n    def run(self):\n        return twice(1)\n\n"
        "def once(x):\n    return x\n"
    )
    two = tmp_path / "round_two.py"
    two.write_text("import round_one\n\ndef twice(x):\n    return round_one.once(x) + twice(0)\n")
    before = Sources().fingerprint("round_one:Net")
    two.write_text(two.read_text().replace("twice(0)", "twice(2)"))
    assert Sources().fingerprint("round_one:Net") != before
    assert "round_one" not in sys.modules  # it is read, not imported


def test_a_class_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells are in no file, but Python's own line cache has them."""
    notebook = types.ModuleType("notebook_of_a_test")
    monkeypatch.setitem(sys.modules, notebook.__name__, notebook)

    def cell(number: int, body: str) -> str:
        text = f"class Net:\n    def run(self):\n        {body}\n"
        name = f"<cell {number}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), vars(notebook))
        return Sources().fingerprint(f"{notebook.__name__}:Net")

    first = cell(1, "return 1")
    assert first != ""
    assert cell(2, "return 1  # again") == first
    assert cell(3, "return 2") != first


def test_packages_of_any_python_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment of a cluster is on the path of Python, and is not where pip installs to."""
    folder = tmp_path / "envs" / "lib" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "elsewhere.py").write_text("class Net:\n    pass\n")
    monkeypatch.syspath_prepend(str(folder))
    assert Sources().fingerprint("elsewhere:Net") == ""
    assert Sources(["elsewhere"]).fingerprint("elsewhere:Net") != ""


def test_what_is_nested_deeply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "class Net:\n    TOTAL = " + " + ".join(["1"] * 900) + "\n"
    (tmp_path / "nested.py").write_text(text)
    before = Sources().fingerprint("nested:Net")
    (tmp_path / "nested.py").write_text(text.replace("1 +", "2 +", 1))
    assert Sources().fingerprint("nested:Net") != before != ""
