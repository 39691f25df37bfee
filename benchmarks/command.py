"""How quickly the command answers, beside a Python that does nothing.

``flambe --help`` may take 4 times as long as ``python -c pass``. ``flambe validate`` builds
nothing and imports no Ray; torch only because the file names classes of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import common

REPEATS = 15
HELP_TARGET = 4.0
EXAMPLE = common.ROOT / "examples" / "digits.yaml"

# What "flambe validate" does, and which modules are there at its end.
_IMPORTS = """
import json, sys
from flambe.cli.main import main
code = main(["validate", sys.argv[1]])
print()
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
sys.exit(code)
"""
HEAVY = ("ray", "torch", "numpy", "pandas", "sklearn", "scipy", "tensorboardX", "rich", "requests")


def imported(source: str, *arguments: str) -> set[str]:
    """Return the top-level modules that a snippet leaves imported."""
    command = [sys.executable, "-c", source, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{done.stdout}{done.stderr}")
    return set(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    flambe = str(Path(sysconfig.get_path("scripts"), "flambe"))
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "flambe --help": [flambe, "--help"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "flambe validate digits.yaml": [flambe, "validate", str(EXAMPLE)],
    }
    print(common.machine())
    found = common.rounds(
        {name: partial(common.took, command) for name, command in commands.items()}, REPEATS
    )
    floor = found["python -c pass"]
    common.table(
        ["command", "ms", "times python -c pass"],
        [
            [name, common.spread(values, 1e3), common.spread(common.ratios(values, floor), 1, 2)]
            for name, values in found.items()
        ],
    )
    help_ratio = statistics.median(common.ratios(found["flambe --help"], floor))
    print(f"\nflambe --help: {common.verdict(help_ratio, HELP_TARGET)}")
    modules = imported(_IMPORTS, str(EXAMPLE))
    print(f"flambe validate imports, of what is heavy: {sorted(modules & set(HEAVY))}")
    print(f"flambe validate imports Ray: {'YES' if 'ray' in modules else 'no'}")


if __name__ == "__main__":
    main()
