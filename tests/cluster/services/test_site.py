"""``site`` of a cluster: its Report Site on an address of the orchestrator, over TLS."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from flambe.cluster.provisioning import decommission
from flambe.cluster.services import report_site
from flambe.errors import ConfigError
from flambe.testing import RecordingObserver
from tests.cluster.conftest import read, ssh_cluster
from tests.experiment.lab import until
from tests.metal import Metal

EQUIPPED = True  # its hosts have flambe's environments from the start


def certified(folder: Path, address: str, name: str = "site") -> tuple[Path, Path]:
    """Make a certificate of an address, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=flambe", "-addext", f"subjectAltName=IP:{address}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.mark.root
@pytest.mark.xdist_group("metal-ssh")
def test_the_site_speaks_tls_on_the_address_of_the_orchestrator(
    metal: Metal, tmp_path: Path
) -> None:
    host = metal.hosts[0]
    certificate, key = certified(tmp_path, host.address)
    told = RecordingObserver()

    def made(**site: Any) -> Any:
        cluster = ssh_cluster(metal, site=site)
        cluster.run(observer=told)
        folder = f"{cluster.context.work}/output__x"
        cluster.orchestrator.run(["mkdir", "-p", folder])
        return cluster, cluster.report.start(folder)

    cluster, place = made(host=host.address, certificate=str(certificate), key=str(key))
    # The fixture gives what this takes half a minute for otherwise: see tests.metal.layer.
    assert not any(note.startswith("environment") for note in told.notes)
    folder = host.root / f"home/{host.user}/.flambe/clusters/metal"
    try:
        assert place.url().startswith(f"https://{host.address}:{place.port}/?token=")
        trusted = ssl.create_default_context(cafile=str(certificate))

        def ask(url: str) -> int:
            with httpx.Client(verify=trusted, trust_env=False, follow_redirects=True) as client:
                return client.get(url).status_code

        def answers() -> bool:
            try:
                return ask(place.url()) == 200
            except httpx.TransportError:
                return False

        until(answers, "the site answers", 60)
        assert ask(place.url().partition("?")[0]) in (401, 403), "the token is asked for"
        for name in ("certificate", "key"):
            assert (folder / f"site.{name}.pem").stat().st_mode & 0o777 == 0o600
        cluster.hosts[0].refresh("metal")
        found = report_site.find("metal", cluster.orchestrator)
        assert found == place
        assert found is not None
        assert not found.is_local
        # A certificate that was renewed takes effect, with the same token.
        certificate, key = certified(tmp_path, host.address, "renewed")
        trusted = ssl.create_default_context(cafile=str(certificate))
        cluster, again = made(host=host.address, certificate=str(certificate), key=str(key))
        assert again == place
        until(answers, "the site answers with the new one", 60)
        # Without one it is told who reads along.
        cluster, plain = made(host="0.0.0.0")
        assert plain.url().startswith(f"http://{host.address}:")
        assert any("is not encrypted" in note for note in told.notes)
    finally:
        for member in cluster.hosts:
            member.refresh("metal")
        decommission.take_down(cluster.context)
    assert list(folder.glob("site.*.pem")) == []


@pytest.mark.parametrize(
    ("site", "told"),
    [
        ("{}", "site needs the keyword 'host'"),
        ("{hots: 10.0.0.1}", "did you mean 'host'?"),
        ("{host: 12}", "site: host cannot be 12"),
        ("{host: here.example}", "is not an IP address"),
        ("{host: 10.0.0.1, key: good.key}", "certificate and key belong together"),
        (
            "{host: 10.0.0.1, key: good.key, certificate: nowhere}",
            "cannot read the certificate nowhere: No such file",
        ),
        ("{host: 10.0.0.1, key: good.key, certificate: text}", "it is not PEM"),
        ("[host]", "site"),
    ],
)
@pytest.mark.parametrize("kind", ["LocalCluster", "SSHCluster"])
def test_what_is_wrong_with_it(tmp_path: Path, kind: str, site: str, told: str) -> None:
    certified(tmp_path, "10.0.0.1", "good")
    (tmp_path / "text").write_text("none\n")
    more = ", orchestrator_ip: 10.0.0.1" if kind == "SSHCluster" else ""
    file = tmp_path / "cluster.yaml"
    file.write_text(f"!{kind} {{name: x, site: {site}{more}}}\n")
    with pytest.raises(ConfigError) as raised:
        read(file)
    assert told in str(raised.value)
    assert f"{file}:1:" in str(raised.value)
