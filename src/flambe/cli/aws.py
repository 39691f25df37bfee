"""``flambe aws`` and ``flambe gc``: what flambe needs on AWS, and what it has there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from flambe.cli.targets import ClusterDisplay, read_cluster
from flambe.cluster.local_state import ClusterFiles, recorded_clusters
from flambe.cluster.providers.aws import AWSCluster, orphans
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.orphans import Resource
from flambe.cluster.providers.aws.policy import policy_json
from flambe.errors import ConfigError, RemoteError, RunError, counted
from flambe.remote.gather import outcomes


@dataclass(frozen=True)
class AwsOptions:
    """The options of ``flambe aws``."""

    what: str


@dataclass(frozen=True)
class GcOptions:
    """The options of ``flambe gc``."""

    region: Sequence[str] | None = None
    profile: str | None = None
    yes: bool = False


def aws(options: AwsOptions) -> int:
    """Print the policy."""
    assert options.what == "policy"
    print(policy_json(), end="")
    return 0


def collect(options: GcOptions) -> int:
    """List what flambe has in regions; remove what is orphaned, if asked to."""
    display = ClusterDisplay()
    sessions = {session.region: session for session in _sessions(options.region, options.profile)}
    resources, errors = _list_resources(sessions)
    orphaned = [resource for resource in resources if resource.orphaned]
    if resources:
        display.console.print(_table(resources, many_regions=len(sessions) > 1))
    elif not errors:
        display.note(f"flambe has nothing in {', '.join(sessions)}")
    if hours := sum(resource.hours or 0.0 for resource in resources):
        display.note(f"{hours:.1f} instance-hours since they were started")
    if orphaned and options.yes:
        for region, session in sessions.items():
            orphans.remove(session, [each for each in orphaned if each.region == region])
        display.note(f"{counted(len(orphaned), 'orphan')} removed")
    elif orphaned:
        them = "it" if len(orphaned) == 1 else "them"
        display.note(f"{counted(len(orphaned), 'orphan')}: flambe gc --yes removes {them}")
    if len(resources) > len(orphaned):
        display.note("flambe status NAME describes a cluster; flambe down NAME takes it down")
    for error in errors:
        display.note(f"error: {error}")
    return 1 if errors else 0


def _list_resources(
    sessions: Mapping[str, AwsSession],
) -> tuple[list[Resource], list[RemoteError]]:
    """Return what flambe has in each region, and the errors of those that could not be asked."""

    def list_region(region: str) -> list[Resource]:
        try:
            return orphans.list_resources(sessions[region])
        except RunError as error:  # the other regions are listed all the same
            raise RemoteError(region, str(error)) from None

    resources: list[Resource] = []
    errors: list[RemoteError] = []
    for result in outcomes(list_region, list(sessions)):
        if isinstance(result, RemoteError):
            errors.append(result)
        else:
            resources += result
    return resources, errors


def _sessions(regions: Sequence[str] | None, profile: str | None) -> list[AwsSession]:
    """Return sessions of some regions, by default of those that were used and the current one."""
    if regions:
        return [AwsSession(region, profile) for region in regions]
    return [*_used_sessions(profile), AwsSession(None, profile)]


def _used_sessions(profile: str | None) -> Iterator[AwsSession]:
    """Yield sessions of the regions of the clusters that were used from this machine."""
    for name in recorded_clusters():
        record = ClusterFiles.of(name).recall()
        if record.kind == AWSCluster.__name__:
            with contextlib.suppress(ConfigError):
                cluster = read_cluster(record.file)
                assert isinstance(cluster, AWSCluster)
                yield AwsSession(cluster.session.region, profile or cluster.profile)


def _table(resources: Sequence[Resource], *, many_regions: bool) -> Table:
    table = Table(header_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", *(["region"] if many_regions else []), "cluster", "creator", "what"):
        table.add_column(title, overflow="fold")
    table.add_column("up", justify="right", no_wrap=True)
    has_orphans = any(resource.orphaned for resource in resources)
    if has_orphans:
        table.add_column("orphaned")
    for resource in resources:
        table.add_row(
            resource.id,
            *([resource.region] if many_regions else []),
            resource.cluster,
            resource.creator,
            resource.summary or resource.kind,
            "" if resource.hours is None else f"{resource.hours:.1f} h",
            *([Text(resource.orphaned, "yellow")] if has_orphans else []),
        )
    return table
