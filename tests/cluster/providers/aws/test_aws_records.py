"""What this machine remembers of clusters on AWS: from before the first call on, each its own."""

from __future__ import annotations

import json
import signal
from functools import partial
from pathlib import Path

import pytest

from flambe.cli import fetch
from flambe.cluster.local_state import ClusterFiles, recorded_clusters
from flambe.errors import ConfigError
from tests.cloud import Cloud
from tests.cluster.providers.aws.conftest import Make, left, up
from tests.cluster.providers.aws.test_aws_faults import Client
from tests.experiment.lab import until

pytestmark = pytest.mark.integration


@pytest.mark.faults
def test_a_cluster_whose_creation_was_killed_is_taken_down_by_its_name(
    paper: Cloud, tmp_path: Path
) -> None:
    paper.faults.boot_delay(20, 20)
    client = Client(paper, tmp_path)
    with client.start() as process:
        until(lambda: len(left(paper)) == 2, "they are launched", 60)
        process.send_signal(signal.SIGKILL)
    code, said = client.run("down", "lab", "--force")
    assert code == 0, said
    assert left(paper) == []
    code, said = client.run("down", "lab", "--force")  # nothing is left of it
    assert code == 2
    assert "no cluster 'lab'" in said


@pytest.mark.long
@pytest.mark.faults
def test_a_cluster_whose_creation_failed_is_known(paper: Cloud, tmp_path: Path) -> None:
    paper.faults.deny("ec2:TerminateInstances")
    paper.faults.die_pending()
    client = Client(paper, tmp_path)
    code, said = client.run()
    assert code == 1
    assert "aws ec2 terminate-instances" in said
    paper.faults.clear()
    code, said = client.run("status")
    assert "lab" in said
    code, said = client.run("down", "lab", "--force")
    assert code == 0, said
    assert left(paper) == []


def launched(paper: Cloud, count: int) -> bool:
    return len(left(paper)) == count


@pytest.mark.long
@pytest.mark.faults
def test_one_name_of_two_creators(paper: Cloud, tmp_path: Path) -> None:
    """Both are made and killed; each is taken down by its file, or by what tells them apart."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    one = Client(paper, first, 0)
    other = Client(paper, second, 0, creator="you@example.com")
    other.env["FLAMBE_HOME"] = one.env["FLAMBE_HOME"]
    for count, client in enumerate((one, other), 1):
        with client.start() as process:
            until(partial(launched, paper, count), "it is launched", 60)
            process.send_signal(signal.SIGKILL)
    code, said = one.run("down", "lab", "--force")
    assert code == 2
    assert "2 clusters of this machine are called 'lab'" in said
    for client, creator in ((one, "me@example.com"), (other, "you@example.com")):
        assert f"{client.file}   (us-east-1, {creator})" in said
    code, said = one.run("down", "lab@you@example.com", "--force")
    assert code == 0, said
    (kept,) = left(paper)
    tags = {tag["key"]: tag["value"] for tag in kept.model.get_tags()}
    assert tags["creator"] == "me@example.com"
    code, said = one.run("down", "lab", "--force")  # it alone has the name now
    assert code == 0, said
    assert left(paper) == []


def remembered(files: ClusterFiles, **fields: object) -> None:
    """Write a record as an earlier version did: without a scope, if none is given."""
    record = {"kind": "AWSCluster", "file": "", "machines": [], "remote_dir": "", **fields}
    files.make_folder()
    files.record.write_text(json.dumps(record))


def test_one_name_in_two_regions(paper: Cloud, make: Make) -> None:
    east, west = make(0).local, make(0, region_name="us-west-2").local
    assert east == west == ClusterFiles("lab")  # the first one that is made has it
    remembered(east, scope=make(0).scope)
    assert make(0).local == east
    west = make(0, region_name="us-west-2").local
    assert west == ClusterFiles("lab", "us-west-2")
    remembered(west, scope=make(0, region_name="us-west-2").scope)
    assert make(0, region_name="us-west-2").local == west
    assert fetch.destination(west.key, None) == Path("fetched/lab@us-west-2")
    third = make(0, region_name="us-west-2", creator="you@example.com")
    assert third.local.variant.startswith("us-west-2-")
    assert recorded_clusters() == ["lab@", "lab@us-west-2"]
    assert [ClusterFiles.of(name) for name in recorded_clusters()] == [east, west]
    assert ClusterFiles.of("lab@us-east-1") == east
    with pytest.raises(ConfigError, match="NAME@REGION"):
        ClusterFiles.of("lab")
    with pytest.raises(ConfigError, match="NAME@REGION"):
        ClusterFiles.of("lab@me@example.com")
    assert ClusterFiles.of("lab@eu-north-1").recall().is_empty


def test_a_record_of_an_earlier_version_is_read(paper: Cloud, make: Make) -> None:
    old = ClusterFiles("lab")
    remembered(old)
    assert old.recall().scope == {}
    assert make(0).local == old
    # … but not one that another file describes.
    remembered(old, file="/elsewhere/cluster.yaml")
    assert make(0).local == ClusterFiles("lab", "us-east-1")
    remembered(old, kind="SSHCluster")
    assert make(0).local == ClusterFiles("lab", "us-east-1")
    assert recorded_clusters() == ["lab"]
    assert ClusterFiles.of("lab") == old


@pytest.mark.root
@pytest.mark.long
@pytest.mark.faults
def test_a_ready_cluster_keeps_its_record(cloud: Cloud, make: Make) -> None:
    """That an earlier version made, without a scope."""
    cluster = make(0)
    cluster.run()
    record = json.loads(cluster.local.record.read_text())
    assert record["scope"] == {"region": cloud.region, "creator": "me@example.com"}
    del record["scope"]
    cluster.local.record.write_text(json.dumps(record))
    again = make(0)
    again.run()
    assert again.local == cluster.local
    assert again.local.recall().scope == cluster.scope
    assert up(make(0)) == ["orchestrator"]
