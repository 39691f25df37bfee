"""Write ``constraints.txt``: what development and CI install, each file known by its hash.

The versions that are there stay: to renew one, remove its entry, or all of them but torch's, and
run this again (``make pins``). uv finds them for every Python, system and processor at once; the
hashes are those of all files of a release that the index has.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
# The oldest Python of flambe; and of its documentation, of which a package needs this patch.
PYTHON, PYTHON_OF_DOCS = "3.10", "3.11.5"
# Builds the editable installation, with hatchling.
BUILDS = "editables"
# Which build of torch is installed, and what that needs, depends on the index of the machine.
OF_TORCH = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")

HEAD = """\
# The versions that development and CI use, so that every machine tests the same, with the hashes
# of all files of each release: what was altered is not installed. For Python 3.10 and newer, some
# in two versions; the documentation's for 3.11.5. The package itself leaves ranges: pyproject.toml.
# To renew: remove an entry, or all but torch's, and run `make pins`. Each part is installed whole,
# by itself: see the Makefile.
"""
# Part → what it is, and the arguments of `uv pip compile` that find it.
PARTS = {
    "pip": ("installs the other parts", ["pip"]),
    "learn": ("flambe, its learning components, and what builds it", ["learn", BUILDS]),
    "dev": ("what tests and checks need", ["learn", "aws", "dev"]),
    "docs": ("what the documentation needs", ["docs"]),
}
TORCH = """
# == torch: exempt from hashes. Which file it is depends on the index of a machine: PyPI has builds
# for CUDA, others those for CPUs, of the same version. What a build for CUDA needs is pinned by
# torch itself.
torch=={version}
"""


def main() -> int:
    """Find all pins, and write the file."""
    with tempfile.TemporaryDirectory() as scratch:
        present = Path(scratch, "present.txt")
        # Without hashes, which would be those of the versions before.
        pattern = r"^[\w.-]+==[^\s;]+(?: ; [^\\\n]+)?"
        entries = re.findall(pattern, PINS.read_text(encoding="utf-8"), re.MULTILINE)
        present.write_text("\n".join(entries), encoding="utf-8")
        folder = Path(scratch)
        parts = {name: _resolve(present, folder, words) for name, (_, words) in PARTS.items()}
    torch = next(entry for entry in parts["learn"] if entry.startswith("torch=="))
    written: set[str] = set()
    text = HEAD
    for name, (description, _) in PARTS.items():
        text += f"\n# == {name}: {description}\n"
        own = {_pin(entry): entry for entry in parts[name] if not OF_TORCH.match(entry)}
        text += "".join(entry for pin, entry in sorted(own.items()) if pin not in written)
        written |= set(own)
    version = torch.partition("==")[2].split()[0]
    PINS.write_text(text + TORCH.format(version=version), encoding="utf-8")
    print(f"{len(written) + 1} pins")
    return 0


def _pin(entry: str) -> str:
    """Return the version of an entry and its marker, without the hashes."""
    return entry.partition("\\")[0].strip()


def _resolve(present: Path, scratch: Path, words: list[str]) -> list[str]:
    """Return the entries of a part, each with its version, marker and hashes."""
    plain = Path(scratch, "requirements.in")
    plain.write_text("".join(f"{w}\n" for w in words if w in ("pip", BUILDS)), encoding="utf-8")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--no-build"]
    python = PYTHON_OF_DOCS if "docs" in words else PYTHON
    command += ["--system-certs", "--universal", "--python-version", python, "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--constraint", str(present), str(plain)]
    extras = [word for word in words if word in ("learn", "aws")]
    command += ["pyproject.toml"] if extras else []
    command += [option for extra in extras for option in ("--extra", extra)]
    command += [option for word in words if word in ("dev", "docs") for option in ("--group", word)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return re.split(r"^(?=\w)", done.stdout, flags=re.MULTILINE)[1:]


if __name__ == "__main__":
    sys.exit(main())
