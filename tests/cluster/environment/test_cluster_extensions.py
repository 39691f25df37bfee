"""Extensions from Git and from an index: hosts get what is installed here, until that changes."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.metal import Metal
from tests.metal.conftest import lent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.xdist_group("metal-extensions"),
]

ROOT = Path(__file__).parents[3]
JOB = """
import subprocess
from importlib import metadata
from flambe.runnable import ClusterRunnable
import from_index

WORD = "{word}"

class Tell(ClusterRunnable):
    def __init__(self, env=None):
        super().__init__(env)

    def setup(self, cluster, extensions, force, **kwargs):
        pass

    def run(self, force=False, **kwargs):
        print("git", WORD, "index", from_index.WORD, flush=True)
"""
PROJECT = (
    '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    '[project]\nname = "{name}"\nversion = "{version}"\n'
    '[tool.hatch.build.targets.wheel]\npackages = ["{module}"]\n'
)


def package(folder: Path, name: str, module: str, version: str, code: str) -> None:
    """Write the source of a distribution."""
    (folder / module).mkdir(parents=True, exist_ok=True)
    (folder / module / "__init__.py").write_text(code)
    text = PROJECT.format(name=name, module=module, version=version)
    (folder / "pyproject.toml").write_text(text)


class Repository:
    """A bare repository that everybody clones, and the tree of who pushes to it."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.tree = folder / "try.git", folder / "tree"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.bare)], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.tree)], check=True)

    @property
    def origin(self) -> str:
        return f"file://{self.bare}/tree/main/deep/ext"

    def push(self, word: str) -> str:
        """Push a commit; return its short name."""
        code = JOB.replace("{word}", word)
        package(self.tree / "deep" / "ext", "try-git", "from_git", "1.0", code)
        self._git("add", "-A")
        self._git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", word)
        self._git("push", "-q", str(self.bare), "main")
        return self._git("rev-parse", "--short", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.tree), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Index:
    """A package index of one distribution."""

    name, module = "flambe-try-index", "from_index"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""

    def publish(self, version: str) -> None:
        """Add a version."""
        source = self.folder / "source" / version
        package(source, self.name, self.module, version, f"WORD = {version!r}\n")
        page = self.folder / "served" / "simple" / self.name
        page.mkdir(parents=True, exist_ok=True)
        build = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--offline"]
        build += ["--no-build-isolation", "--out-dir", str(page), str(source)]
        subprocess.run(build, check=True, env={**os.environ, "VIRTUAL_ENV": sys.prefix})
        links = [f'<a href="{path.name}">{path.name}</a>' for path in page.glob("*.whl")]
        (page / "index.html").write_text(
            f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"
        )

    @contextlib.contextmanager
    def served(self) -> Iterator[Index]:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

        (self.folder / "served").mkdir(parents=True)
        handler = functools.partial(Quiet, directory=str(self.folder / "served"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class Desk:
    """An environment of its own, into which ``flambe -i`` installs, and a folder to work in."""

    def __init__(self, folder: Path, metal: Metal, url: str) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        site = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
        place = subprocess.check_output([str(self.python), "-c", site], text=True).strip()
        # What this environment has is importable there too.
        own = [path for path in sys.path if path.endswith("site-packages")]
        Path(place, "parent.pth").write_text("\n".join([*own, str(ROOT / "src")]) + "\n")
        self.env = {**os.environ, "FLAMBE_HOME": str(folder / "home"), "COLUMNS": "150"}
        self.env["PIP_EXTRA_INDEX_URL"] = url
        (folder / "cluster.yaml").write_text(metal.cluster_yaml("lab"))

    def header(self, **extensions: str) -> None:
        lines = [f"{name}: {origin}\n" for name, origin in extensions.items()]
        (self.folder / "job.yaml").write_text("".join(lines) + "---\n!from_git.Tell {}\n")

    def flambe(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.python), "-m", "flambe", *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.flambe("job.yaml", "--cluster", "cluster.yaml", *options)

    def status(self) -> tuple[str, str]:
        """Return what ``flambe status`` tells of the two extensions, the same of every host."""
        out = self.flambe("status", "lab").stdout
        pattern = r"flambe-try-index (\S+ \(\w{8}\)), try-git (\S+ \(\w{8}\))"
        found = re.findall(pattern, out)
        assert (len(found), len(set(found))) == (2, 1), out
        return found[0][0], found[0][1]


def test_what_was_installed_is_what_hosts_get(tmp_path: Path) -> None:
    repository, published = Repository(tmp_path), Index(tmp_path / "index")
    with lent(2) as metal, published.served() as index:
        desk = Desk(tmp_path, metal, index.url)
        first = repository.push("one")
        index.publish("1.0")
        desk.header(from_git=repository.origin, from_index=f"{Index.name}>=1.0")
        installed = desk.run("-i")
        assert f"installing commit {first} of " in installed.stderr
        assert "git one index 1.0" in installed.stdout.splitlines()
        before = desk.status()
        # What is new elsewhere is not new here, and so not there.
        second = repository.push("two")
        index.publish("1.1")
        again = desk.run()
        assert "git one index 1.0" in again.stdout.splitlines()
        assert desk.status() == before
        # Installed anew: of Git the last commit, of the index what the requirement wants.
        desk.header(from_git=repository.origin, from_index=f"{Index.name}>=1.1")
        renewed = desk.run("-i")
        assert f"installing commit {second} of " in renewed.stderr
        assert "git two index 1.1" in renewed.stdout.splitlines()
        after = desk.status()
        assert after[0].startswith("1.1 ")
        assert after[1] != before[1]
        # The same bytes everywhere, seen on the hosts themselves.
        name = f"/home/{metal.user}/.flambe/envs/*/lib/python3.*/site-packages/from_git/__init__.py"
        for host in metal.hosts:
            words = host.run("sh", "-c", f"grep -h WORD.= {name} | sort -u").stdout.split("\n")
            assert words == ['WORD = "one"', 'WORD = "two"', ""]
        desk.flambe("down", "lab")
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
