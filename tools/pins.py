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
# The oldest that `make` runs with, of which a package of the documentation needs this patch.
PYTHON = "3.11.5"
# Builds the editable installation, with hatchling.
BUILDS = "editables"
# Which build of torch is installed, and what that needs, depends on the index of the machine.
OF_TORCH = re.compile(r"torch|triton|nvidia-.*|cuda-.*")

HEAD = """\
# The versions that development and CI use, so that every machine tests the same, with the hashes
# of all files of each release: what was altered is not installed. For Python 3.11.5 and newer. The
# package itself leaves ranges: pyproject.toml. To renew: remove an entry, or all but torch's, and
# run `make pins`. Each part is installed whole, by itself: see the Makefile.
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
        known = Path(scratch, "known.txt")
        # Without hashes, which would be those of the versions that were.
        entries = re.findall(r"^[\w.-]+==[^\s;]+", PINS.read_text(encoding="utf-8"), re.MULTILINE)
        known.write_text("\n".join(entries), encoding="utf-8")
        parts = {name: _found(known, Path(scratch), words) for name, (_, words) in PARTS.items()}
    torch = parts["learn"].pop("torch").partition("==")[2].split()[0]
    written: set[str] = set()
    text = HEAD
    for name, (what, _) in PARTS.items():
        text += f"\n# == {name}: {what}\n"
        mine = {key: entry for key, entry in parts[name].items() if not OF_TORCH.fullmatch(key)}
        text += "".join(entry for key, entry in sorted(mine.items()) if key not in written)
        written |= set(mine)
    PINS.write_text(text + TORCH.format(version=torch), encoding="utf-8")
    print(f"{len(written) + 1} pins")
    return 0


def _found(known: Path, scratch: Path, words: list[str]) -> dict[str, str]:
    """Return the entries of a part: name → its version, marker and hashes."""
    plain = Path(scratch, "requirements.in")
    plain.write_text("".join(f"{w}\n" for w in words if w in ("pip", BUILDS)), encoding="utf-8")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "--no-build"]
    command += ["--system-certs", "--universal", "--python-version", PYTHON, "--generate-hashes"]
    command += ["--no-annotate", "--no-header", "--constraint", str(known), str(plain)]
    extras = [word for word in words if word in ("learn", "aws")]
    command += ["pyproject.toml"] if extras else []
    command += [option for extra in extras for option in ("--extra", extra)]
    command += [option for word in words if word in ("dev", "docs") for option in ("--group", word)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    entries = re.split(r"^(?=\w)", done.stdout, flags=re.MULTILINE)[1:]
    return {re.split(r"[=\s]", entry, maxsplit=1)[0]: entry for entry in entries}


if __name__ == "__main__":
    sys.exit(main())
