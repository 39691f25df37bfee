"""A kind of cluster of one's own has its secrets, whatever command it is read for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.place import Place

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("local-cluster")]

TOKEN = "canary-0815"
VAULT = """
from flambe.cluster import LocalCluster

class Vault(LocalCluster):
    # Nothing of it can be had without a token, as of a cloud.
    def _allowed(self):
        assert self.config["VAULT"]["token"].startswith("canary"), "the wrong token"

    def parse(self):
        self._allowed()
        super().parse()

    def find_machines(self):
        self._allowed()
        return super().find_machines()

    def missing_machines(self):
        self._allowed()
        return super().missing_machines()

    def create_machines(self, found):
        self._allowed()
        return super().create_machines(found)

    def remove_machines(self):
        self._allowed()
        super().remove_machines()

class Fails(Vault):
    def find_machines(self):
        return [].pop()
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a folder with the file of such a cluster, and its secrets beside it."""
    made = Place(tmp_path, "vaults: ./vaults\n---\n!vaults.Vault {name: vault, factories_num: 0}\n")
    package = tmp_path / "vaults"
    (package / "vaults").mkdir(parents=True)
    (package / "vaults" / "__init__.py").write_text(VAULT)
    (package / "pyproject.toml").write_text(
        (tmp_path / "job_ext" / "pyproject.toml").read_text().replace("job-ext", "vaults")
    )
    made.install(package)
    secrets = tmp_path / "mine.ini"
    secrets.write_text(f"[VAULT]\ntoken = {TOKEN}\n[API]\ntoken = another-one\n")
    secrets.chmod(0o600)
    return made


def test_every_command_gives_a_cluster_its_secrets(place: Place) -> None:
    def flambe(*arguments: str | Path, code: int = 0) -> str:
        done = place.flambe(*arguments)
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout + done.stderr

    file, job, secrets = place.cluster, place.job(code=3), ("-s", "mine.ini")
    # Before it was made, the option says which they are, for every command.
    assert "no section [VAULT] in the secrets" in flambe("plan", file, code=2)
    assert "no section [VAULT] in the secrets" in flambe("status", file, code=2)
    assert "no changes were made" in flambe("plan", file, *secrets)
    assert "no changes were made" in flambe("plan", job, "-c", file, *secrets)
    assert "are not running" in flambe("status", file, *secrets)
    try:
        flambe(file, *secrets)
        # From then on it is remembered, by the name of the cluster too, wherever one is.
        for name in (file, "vault"):
            assert "orchestrator" in flambe("status", name)
            assert flambe("exec", name, "--", "echo", "hello").strip() == "hello"
        assert "no changes were made" in flambe("plan", job, "-c", "vault")
        assert "secret ***" not in flambe(job, "-c", file, code=3), "those of the run are its own"
        flambe("logs", "vault")
        flambe("stop", "vault")
        flambe("fetch", "vault", "there")
        site = place.start("site", "vault")
        try:
            assert "no Report Site" in site.communicate(timeout=60)[0]
        finally:
            site.kill()
        # Those of the option count.
        wrong = place.folder / "wrong.ini"
        wrong.write_text("[VAULT]\ntoken = not-this-one\n")
        wrong.chmod(0o600)
        said = flambe("down", "vault", "-s", "wrong.ini", code=1)
        assert "!vaults.Vault" in said
        assert "the wrong token" in said
        # Where the file is gone, it is the default one.
        default = place.folder / "home" / "secrets.ini"
        (place.folder / "mine.ini").rename(default)
        assert "orchestrator" in flambe("status", "vault")
    finally:
        done = place.flambe("down", "vault", "--force")
    assert "vault is down" in done.stdout, done.stderr


def test_what_a_cluster_of_ones_own_raises_is_named(place: Place) -> None:
    place.cluster.write_text("vaults: ./vaults\n---\n!vaults.Fails {name: vault}\n")
    for command in ("status", "plan", "down"):
        done = place.flambe(command, place.cluster, "-s", "mine.ini")
        assert done.returncode == 1
        assert "cluster.yaml:3:1: running !vaults.Fails: IndexError" in done.stderr
        assert "vaults/__init__.py" in done.stderr
