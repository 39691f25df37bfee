"""The instances of one cluster; each change is written to the audit log before it is made."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from flambe.cluster.providers.aws.api import alarms
from flambe.cluster.providers.aws.api.aws_errors import is_aws_error, reason
from flambe.cluster.providers.aws.api.aws_session import AwsSession
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.api.instances import Instances
from flambe.cluster.providers.aws.audit_log import AuditLog
from flambe.cluster.providers.aws.aws_config import AwsConfig


class Fleet:
    """The instances of one cluster.

    Parameters
    ----------
    config
        What the cluster file says.
    session
        The region and its user.
    audit_log
        Gets a line before each change.
    notify
        Gets lines of text about what happens.
    """

    def __init__(
        self,
        config: AwsConfig,
        session: AwsSession,
        audit_log: AuditLog,
        notify: Callable[[str], None],
    ) -> None:
        self.config = config
        self.session = session
        self.audit_log = audit_log
        self.notify = notify
        self.instances = Instances(session)

    def find(self) -> dict[str, Instance]:
        """Return the instances by the names of their hosts, whatever their state."""
        tags = {"Cluster-Name": self.config.name, "creator": self.config.creator}
        return by_host(self.instances.list_live(tags))

    def stop(self, ids: Sequence[str]) -> None:
        """Stop instances."""
        self.audit_log.write("stop", ids=list(ids))
        self.instances.stop(ids)

    def terminate(self, ids: Sequence[str]) -> None:
        """Terminate instances, and delete their alarms."""
        self.audit_log.write("terminate", ids=list(ids))
        self.instances.terminate(ids)
        try:
            alarms.delete_alarms(self.session, [alarms.alarm_name(each) for each in ids])
        except Exception as error:
            if not is_aws_error(error):
                raise
            # Without alarms in the file, the user may not even have the right to list them.
            if self.config.factories_alarm:
                self.notify(f"warning: AWS: the alarms were not deleted: {reason(error)}")


def by_host(instances: Sequence[Instance]) -> dict[str, Instance]:
    """Return instances by the names of their hosts.

    Factories that were never reached have no name yet, and get one by their order, so that every
    client gives them the same names.
    """
    named = {instance.host_name: instance for instance in instances if instance.host_name}
    unnamed = [instance for instance in instances if not instance.host_name]
    unnamed.sort(key=lambda instance: (instance.launch_index, instance.id))
    candidates = (f"factory_{number}" for number in itertools.count(1))
    free_names = (name for name in candidates if name not in named)
    return {**named, **{next(free_names): instance for instance in unnamed}}
