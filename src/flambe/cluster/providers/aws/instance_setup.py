"""What is set up on new instances: a host key and a name, the reaper's settings, and an alarm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flambe.cluster.cluster_host import ClusterHost
from flambe.cluster.providers.aws import user_data
from flambe.cluster.providers.aws.api import alarms
from flambe.cluster.providers.aws.api.aws_errors import is_aws_error, reason
from flambe.cluster.providers.aws.api.aws_tags import HOST_KEY, HOST_NAME
from flambe.cluster.providers.aws.api.instance import Instance
from flambe.cluster.providers.aws.fleet import Fleet
from flambe.remote import each
from flambe.remote.known_hosts import pin

# The new key is in place before sshd reads it, and open connections stay open. Of two clients that
# run this at the same time, the second one finds it done.
_NEW_KEY = f"""set -eu
exec 9> {user_data.FOLDER}/renewing
flock 9
cd /etc/ssh
if [ ! -e {user_data.FOLDER}/renewed ]; then
  rm -f flambe_new flambe_new.pub
  ssh-keygen -q -t ed25519 -N '' -C '' -f flambe_new
  mv flambe_new ssh_host_ed25519_key
  mv flambe_new.pub ssh_host_ed25519_key.pub
  touch {user_data.FOLDER}/renewed
  if [ -d /run/systemd/system ]; then systemctl try-restart ssh
  else kill -HUP "$(cat /run/sshd.pid)"; fi
fi
cat ssh_host_ed25519_key.pub
"""
# Moved into place: the reaper reads it at any time.
_WRITE_SETTINGS = f"""set -eu
cat > {user_data.SETTINGS}.part
mv {user_data.SETTINGS}.part {user_data.SETTINGS}
touch {user_data.READY}
"""
# What is kept in the state of each host.
REAPER_MARK, ALARM_MARK = "reaper", "alarm"


def settle_in(
    fleet: Fleet, instances: Mapping[str, Instance], hosts: Sequence[ClusterHost]
) -> None:
    """Give new instances host keys that never left them, and their names.

    The connections are trusted by the keys that the instances got for their first boot.
    """

    def settle(host: ClusterHost) -> None:
        name = host.machine.name
        instance = instances[name]
        if instance.is_settled:
            return  # it was stopped, and started again
        done = host.run(["sudo", "sh", "-c", _NEW_KEY], shown="making a host key")
        key = " ".join(done.stdout.split()[:2])
        pin(host.connection.login.known_hosts, host.machine.address, [key])
        host.machine = replace(host.machine, host_keys=(key,))
        tags = {HOST_KEY: key, HOST_NAME: name, "Name": f"{fleet.config.name}_{name}"}
        fleet.instances.tag(instance.id, tags)

    each(settle, [host for host in hosts if host.machine.new])


def update_reapers(fleet: Fleet, hosts: Sequence[ClusterHost]) -> None:
    """Tell the reapers that the hosts are ready, and what their timeouts are now."""
    config = fleet.config

    def update(host: ClusterHost) -> None:
        settings = config.reaper_settings(config.role_of(host.machine.name))
        if host.report.marks.get(REAPER_MARK) != settings or host.machine.new:
            command = ["sudo", "sh", "-c", _WRITE_SETTINGS]
            host.run(command, content=json.dumps(settings), shown="updating its reaper")
            host.mark(config.name, REAPER_MARK, settings)

    each(update, hosts)


def arm_alarms(fleet: Fleet, hosts: Sequence[ClusterHost]) -> None:
    """Give each factory its alarm, or delete it, as the file says; a refusal is a warning.

    An alarm sees processors only, neither GPUs nor leases, and a week of the past at most. It is
    for a host that hangs, and its reaper with it.
    """
    config, hours = fleet.config, fleet.config.alarm_hours
    outdated = [
        host
        for host in hosts
        if not host.is_orchestrator and host.report.marks.get(ALARM_MARK) != hours
    ]
    try:
        for host in outdated:
            instance_id = host.machine.identity
            if hours is None:
                alarms.delete_alarms(fleet.session, [alarms.alarm_name(instance_id)])
            else:
                fleet.audit_log.write("alarm", id=instance_id)
                alarms.put_alarm(fleet.session, config.name, instance_id, hours)
            host.mark(config.name, ALARM_MARK, hours)
    except Exception as error:
        if not is_aws_error(error):
            raise
        fleet.notify(f"warning: AWS: no alarms for the factories: {reason(error)}")
