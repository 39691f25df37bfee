"""What is done on new instances: a host key of their own, and word to their reaper."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from flambe.cluster.aws import userdata
from flambe.remote import each
from flambe.remote.connection import pin

if TYPE_CHECKING:
    from flambe.cluster.aws.cluster import AWSCluster
    from flambe.cluster.member import Member

# The new key is in its place before sshd reads it; connections that are there go on.
_NEW_KEY = """set -eu
cd /etc/ssh
rm -f flambe_new flambe_new.pub
ssh-keygen -q -t ed25519 -N '' -C '' -f flambe_new
mv flambe_new ssh_host_ed25519_key
mv flambe_new.pub ssh_host_ed25519_key.pub
cat ssh_host_ed25519_key.pub
if [ -d /run/systemd/system ]; then systemctl try-restart ssh
else kill -HUP "$(cat /run/sshd.pid)"; fi
"""
# Written beside, then moved: the reaper reads it at any time.
_SETTLE = f"""set -eu
cat > {userdata.SETTINGS}.part
mv {userdata.SETTINGS}.part {userdata.SETTINGS}
touch {userdata.READY}
"""
MARK = "reaper"


def renew_host_keys(cluster: AWSCluster, members: Sequence[Member]) -> None:
    """Give new instances host keys that never left them, over connections that are trusted."""
    new = [member for member in members if member.machine.new]
    ids = cluster.ids() if new else {}

    def renew(member: Member) -> None:
        done = member.run(["sudo", "sh", "-c", _NEW_KEY], shown="making a host key")
        key = " ".join(done.stdout.split()[:2])
        pin(member.connection.login.known_hosts, member.machine.address, [key])
        member.machine = replace(member.machine, host_keys=(key,))
        cluster.ec2.tag(ids[member.machine.name], {userdata.HOST_KEY: key})

    each(renew, new)


def settle(cluster: AWSCluster, members: Sequence[Member]) -> None:
    """Tell the reapers that the hosts are ready, and what their timeouts are now."""

    def tell(member: Member) -> None:
        role = "Orchestrator" if member.is_orchestrator else "Factory"
        wanted = cluster.reaping(role)
        known = member.report["marks"].get(MARK)
        if known != wanted or member.machine.new:
            command = ["sudo", "sh", "-c", _SETTLE]
            member.run(command, content=json.dumps(wanted), shown="telling its reaper")
            member.mark(cluster.name, MARK, wanted)

    each(tell, members)
