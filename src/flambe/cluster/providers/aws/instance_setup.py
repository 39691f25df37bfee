"""What is done on new instances: a host key and a name of their own, and word to their reaper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flambe.cluster.providers.aws import user_data
from flambe.cluster.providers.aws.instance import HOST_KEY, NUMBER, is_settled
from flambe.cluster.providers.aws.request import role_of
from flambe.remote import each
from flambe.remote.connection import pin

if TYPE_CHECKING:
    from flambe.cluster.cluster_host import ClusterHost
    from flambe.cluster.providers.aws.aws_cluster import AWSCluster

# The new key is in its place before sshd reads it; connections that are there go on. Of two clients
# that come at the same time, the second finds it done.
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
# Written beside, then moved: the reaper reads it at any time.
_SETTLE = f"""set -eu
cat > {user_data.SETTINGS}.part
mv {user_data.SETTINGS}.part {user_data.SETTINGS}
touch {user_data.READY}
"""
MARK = "reaper"


def settle_in(cluster: AWSCluster, members: Sequence[ClusterHost]) -> None:
    """Give new instances host keys that never left them, and their names.

    The connections are trusted by the keys that the instances were given for their first boot.
    """
    new = [member for member in members if member.machine.new]

    def settle(member: ClusterHost) -> None:
        one, name = cluster.instances[member.machine.name], member.machine.name
        if is_settled(one):
            return  # it was only started again
        done = member.run(["sudo", "sh", "-c", _NEW_KEY], shown="making a host key")
        key = " ".join(done.stdout.split()[:2])
        pin(member.connection.login.known_hosts, member.machine.address, [key])
        member.machine = replace(member.machine, host_keys=(key,))
        tags = {HOST_KEY: key, NUMBER: name, "Name": f"{cluster.name}_{name}"}
        cluster.ec2.tag(one["InstanceId"], tags)

    each(settle, new)


def tell_reapers(cluster: AWSCluster, members: Sequence[ClusterHost]) -> None:
    """Tell the reapers that the hosts are ready, and what their timeouts are now."""

    def tell(member: ClusterHost) -> None:
        wanted = cluster.reaping(role_of(member.machine.name))
        if member.report["marks"].get(MARK) != wanted or member.machine.new:
            command = ["sudo", "sh", "-c", _SETTLE]
            member.run(command, content=json.dumps(wanted), shown="telling its reaper")
            member.mark(cluster.name, MARK, wanted)

    each(tell, members)
