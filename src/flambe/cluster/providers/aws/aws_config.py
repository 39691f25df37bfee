"""What a launch needs: the keywords of an AWSCluster, for both roles and for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from flambe.cluster.machine import ORCHESTRATOR as ORCHESTRATOR_HOST
from flambe.cluster.providers.aws import aws_validation
from flambe.cluster.providers.aws.user_data import ReaperSettings, reaper_settings
from flambe.errors import ConfigError, Problem


@dataclass(frozen=True)
class RoleConfig:
    """What the instances of one role have for themselves.

    Attributes
    ----------
    role
        ``Orchestrator`` or ``Factory``: the value of their tag ``Role``.
    instance_type, ami
        Their type, and their image; None for the current default one.
    timeout
        Hours of low use after which they terminate; -1 for never.
    spot
        Whether they are spot instances.
    """

    role: str
    instance_type: str
    ami: str | None
    timeout: float
    spot: bool = False

    @property
    def label(self) -> str:
        """The role in messages, and the prefix of its keywords: ``orchestrator``, ``factory``."""
        return self.role.lower()


@dataclass(frozen=True)
class AwsConfig:
    """What the instances of a cluster have in common; the fields are keywords of ``AWSCluster``.

    Attributes
    ----------
    orchestrator, factory
        What each role has for itself.
    factories_num
        How many factories there are.
    key
        The path of the private key.
    """

    name: str
    creator: str
    orchestrator: RoleConfig
    factory: RoleConfig
    factories_num: int
    key_name: str
    key: Path
    security_group: str
    subnets: Sequence[str]
    tags: Mapping[str, str]
    volume_size: float
    volume_type: str
    username: str
    remote_dir: str
    region_name: str | None
    profile: str | None
    dedicated: bool
    use_public: bool
    provisioning_timeout: float
    factories_alarm: bool
    instance_profile: str | None

    def check(self) -> None:
        """Check the values as ``flambe validate`` does: those given in Python were not checked yet.

        Raises
        ------
        ConfigError
            If some are wrong.
        """
        keywords = {field.name: getattr(self, field.name) for field in fields(self)}
        keywords["subnet_id"] = list(self.subnets)
        for prefix, role in (("orchestrator", self.orchestrator), ("factories", self.factory)):
            keywords[f"{prefix}_type"] = role.instance_type
            keywords[f"{prefix}_timeout"] = role.timeout
            keywords[f"{role.label}_ami"] = role.ami
        problems = [
            Problem(f"cluster {self.name}: {message}", hint=hint)
            for _, message, hint in aws_validation.findings(keywords)
        ]
        if problems:
            raise ConfigError(problems)

    @property
    def host_names(self) -> list[str]:
        """The names of the hosts."""
        return [ORCHESTRATOR_HOST, *(f"factory_{n + 1}" for n in range(self.factories_num))]

    def role_of(self, host_name: str) -> RoleConfig:
        """Return the role of a host."""
        return self.orchestrator if host_name == ORCHESTRATOR_HOST else self.factory

    def role_counts(self, host_names: Sequence[str]) -> list[tuple[RoleConfig, int]]:
        """Return how many of some hosts have each role; roles without any are left out."""
        orchestrators = host_names.count(ORCHESTRATOR_HOST)
        counts = (
            (self.orchestrator, orchestrators),
            (self.factory, len(host_names) - orchestrators),
        )
        return [(role, count) for role, count in counts if count]

    @property
    def ready_within(self) -> str:
        """The hours within which a host must be ready, as a tag has them."""
        return f"{self.provisioning_timeout:g}"

    @property
    def volume(self) -> str:
        """The root volume, as a tag has it."""
        return f"{self.volume_size:g} GB {self.volume_type}"

    @property
    def alarm_hours(self) -> float | None:
        """The hours of idleness after which an alarm terminates a factory; None without alarms."""
        hours = self.factory.timeout
        return hours if self.factories_alarm and hours >= 0 else None

    def reaper_settings(self, role: RoleConfig) -> ReaperSettings:
        """Return the settings of the reapers on the hosts of a role."""
        return reaper_settings(
            role.timeout, self.provisioning_timeout, self.username, self.remote_dir
        )
