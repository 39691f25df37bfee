"""Removing environments that are no longer used: each edit of an extension adds one."""

from __future__ import annotations

from flambe.cluster.context import ClusterContext
from flambe.errors import counted
from flambe.remote import each

#: How many are kept in addition to those in use: going back to one takes no time then.
KEPT = 2
# It takes the lock under which environments are made: an incomplete one is not being made then.
_SCRIPT = """
cd "$1/envs" || exit 0
left=$2; used=" $3 "
exec 9> .lock; flock 9
for folder in $(ls -td -- */ 2>/dev/null); do
  name=${folder%/}
  case "$used" in *" $name "*) continue;; esac
  if [ -e "$name/flambe.json" ] && [ "$left" -gt 0 ]; then left=$((left - 1)); continue; fi
  rm -rf -- "$name" "../parts/$name" && echo "$name"
done
"""


def prune(cluster: ClusterContext) -> None:
    """Remove the environments of hosts but the current one, those in use, and the last two."""
    # Hosts may share the folder: an environment that one of them uses is in use.
    runs = [run for host in cluster.hosts for run in host.report.runs.values()]
    running = [str(run.about.get("environment") or "") for run in runs if run.runs]
    used = " ".join(dict.fromkeys([cluster.environment_name, *running]))
    command = ["sh", "-c", _SCRIPT, "sh", cluster.remote_dir, str(KEPT), used]
    done = each(lambda host: host.run(command, deadline=600, repeat=True), cluster.hosts)
    removed = {name for result in done for name in result.stdout.split()}
    if removed:
        cluster.observer.note(f"environment: removed {counted(len(removed), 'old environment')}")
