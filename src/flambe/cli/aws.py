"""``flambe aws`` and ``flambe gc``: what AWS must allow, and what is left there."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from flambe.cli.targets import ClusterDisplay, read_cluster
from flambe.cluster.local_state import ClusterFiles, known
from flambe.cluster.providers.aws import AWSCluster, orphans
from flambe.cluster.providers.aws.ec2 import Ec2
from flambe.cluster.providers.aws.policy import policy
from flambe.errors import ConfigError, RemoteError, RunError, counted
from flambe.remote.gather import outcomes


def aws(options: argparse.Namespace) -> int:
    """Print the policy."""
    assert options.what == "policy"
    print(json.dumps(policy(), indent=2))
    return 0


def collect(options: argparse.Namespace) -> int:
    """List what is flambe's in regions; remove what nobody needs any more, if asked to."""
    shown = ClusterDisplay()
    places = {ec2.region: ec2 for ec2 in _regions(options.region, options.profile)}

    def look(region: str) -> list[orphans.Found]:
        try:
            return orphans.look(places[region])
        except RunError as error:  # the other regions are shown all the same
            raise RemoteError(region, str(error)) from None

    looked = outcomes(look, list(places))
    failed = [one for one in looked if isinstance(one, RemoteError)]
    found = [one for part in looked if not isinstance(part, RemoteError) for one in part]
    left = [one for one in found if one.why]
    if found:
        shown.console.print(_table(found, many=len(places) > 1))
    elif not failed:
        shown.note(f"there is nothing of flambe in {', '.join(places)}")
    hours = sum(one.hours or 0.0 for one in found)
    if hours:
        shown.note(f"{hours:.1f} instance-hours since they were started")
    if left and options.yes:
        for region, ec2 in places.items():
            orphans.remove(ec2, [one for one in left if one.region == region])
        shown.note(f"{counted(len(left), 'thing')} removed")
    elif left:
        shown.note(f"{counted(len(left), 'thing')} nobody needs: flambe gc --yes removes them")
    if any(not one.why for one in found):
        shown.note("flambe down NAME takes a cluster down; flambe status NAME tells of it")
    for error in failed:
        shown.note(f"error: {error}")
    return 1 if failed else 0


def _regions(given: Sequence[str] | None, profile: str | None) -> list[Ec2]:
    if given:
        return [Ec2(region, profile) for region in given]
    return [*_used(profile), Ec2(None, profile)]


def _used(profile: str | None) -> Iterator[Ec2]:
    """Yield the regions of the clusters that were used from here."""
    for name in known():
        note = ClusterFiles.of(name).recall()
        if note.get("kind") == AWSCluster.__name__:
            with contextlib.suppress(ConfigError):
                cluster = read_cluster(str(note.get("file", "")))
                assert isinstance(cluster, AWSCluster)
                yield Ec2(cluster.ec2.region, profile or cluster.profile)


def _table(found: Sequence[orphans.Found], *, many: bool) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", *(["region"] if many else []), "cluster", "creator", "what"):
        table.add_column(title, overflow="fold")
    table.add_column("up", justify="right", no_wrap=True)
    some = any(one.why for one in found)
    if some:
        table.add_column("nobody needs it, since")
    for one in found:
        table.add_row(
            one.identity,
            *([one.region] if many else []),
            one.cluster,
            one.creator,
            one.what or one.kind,
            "" if one.hours is None else f"{one.hours:.1f} h",
            *([Text(one.why, "yellow")] if some else []),
        )
    return table
