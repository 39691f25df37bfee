"""Environments that nothing uses any more are removed: each edit of an extension adds one."""

from __future__ import annotations

from flambe.cluster.context import ClusterContext
from flambe.cluster.services.service import RUNNING
from flambe.remote import each

#: How many are kept beside those that are used: who goes back to one has it at once.
KEPT = 2
# Under the lock that they are made under: what is not whole then, nobody is making.
_SCRIPT = """
cd "$1/envs" || exit 0
left=$2; used=" $3 "
exec 9> .lock; flock 9
for place in $(ls -td -- */ 2>/dev/null); do
  name=${place%/}
  case "$used" in *" $name "*) continue;; esac
  if [ -e "$name/flambe.json" ] && [ "$left" -gt 0 ]; then left=$((left - 1)); continue; fi
  rm -rf -- "$name" "../parts/$name" && echo "$name"
done
"""


def prune(cluster: ClusterContext) -> None:
    """Remove the environments of hosts but the current one, those that run, and the last two."""
    # Hosts may share the folder: what one of them uses is used.
    runs = [run for host in cluster.hosts for run in host.report["runs"].values()]
    running = [run["about"].get("environment", "") for run in runs if run["state"] == RUNNING]
    used = " ".join(dict.fromkeys([cluster.environment_name, *running]))
    command = ["sh", "-c", _SCRIPT, "sh", cluster.remote_dir, str(KEPT), used]
    done = each(lambda host: host.run(command, deadline=600, repeat=True), cluster.hosts)
    removed = {name for one in done for name in one.stdout.split()}
    if removed:
        what = "an old one was" if len(removed) == 1 else f"{len(removed)} old ones were"
        cluster.observer.note(f"environment: {what} removed")
