"""Bring the libraries of the Report Site's pages here, from the npm registry.

They lie in ``src/flambe/report/static/vendor``, unchanged, so that pages need no other address than
that of the site. ``vendor.json`` there names them with their versions and the hash of each file; a
test compares. To renew one, change its version in ``vendor.json``, and run this again.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[1] / "src/flambe/report/static/vendor"


def main() -> int:
    """Fetch every package that ``vendor.json`` names, and write its files."""
    known = json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))
    for name, package in known.items():
        print(f"{name} {package['version']}")
        archive = _packed(f"{name}@{package['version']}")
        folder = VENDOR / name.rpartition("/")[2]
        folder.mkdir(parents=True, exist_ok=True)
        hashes = {}
        with tarfile.open(fileobj=io.BytesIO(archive)) as content:
            for file in package["files"]:
                member = content.extractfile(f"package/{file}")
                assert member is not None, f"{name} has no {file}"
                data = member.read()
                target = folder / file.removeprefix("dist/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                hashes[file] = hashlib.sha256(data).hexdigest()
        package["files"] = hashes
    (VENDOR / "vendor.json").write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return 0


def _packed(wanted: str) -> bytes:
    # npm compares what it brings with the integrity that the registry tells.
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", wanted], cwd=folder, check=True, stdout=sys.stderr
        )
        (archive,) = Path(folder).glob("*.tgz")
        return archive.read_bytes()


if __name__ == "__main__":
    sys.exit(main())
