"""What an instance is given for its first boot, as cloud-init itself would check it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from flambe.cluster.providers.aws import user_data
from flambe.cluster.providers.aws.request import LaunchRequests
from tests.cluster.providers.aws.conftest import Make

if TYPE_CHECKING:
    from tests.cloud import Cloud

# An extract of the schema in the package: to install cloud-init itself would add services that wait
# for a cloud at the next boot of this machine.
SCHEMA = json.loads((Path(__file__).parent / "cloud-init-schema.json").read_text(encoding="utf-8"))


def config() -> dict[str, Any]:
    settings = user_data.reaper_settings(1, 1, "ubuntu", ".flambe")
    first, _, text = user_data.user_data(user_data.HostKey.new(), settings).partition("\n")
    assert first == "#cloud-config"
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_cloud_init_takes_it() -> None:
    jsonschema.validate(config(), SCHEMA)


@pytest.mark.parametrize("more", [{"ssh_genkeytypes": []}, {"runcmd": "x"}, {"nonsense": 1}])
def test_the_schema_refuses_what_is_wrong(more: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config(), **more}, SCHEMA)


def test_apt_waits_for_others_that_install() -> None:
    (entry,) = [one for one in config()["write_files"] if "/apt.conf.d/" in one["path"]]
    assert entry["content"].startswith("DPkg::Lock::Timeout")


@pytest.mark.parametrize(("profile", "hops"), [(None, None), ("readers", 2)])
def test_a_role_is_had_from_containers_too(
    paper: Cloud, make: Make, profile: str | None, hops: int | None
) -> None:
    fleet = make(1, instance_profile=profile).fleet
    requests = LaunchRequests(fleet.config, fleet.session)
    key, role = user_data.HostKey.new(), fleet.config.orchestrator
    request: Any = requests.build(role, 1, key, paper.prepared.subnet, "token")
    options = request["MetadataOptions"]
    assert options["HttpTokens"] == "required"
    assert options.get("HttpPutResponseHopLimit") == hops
