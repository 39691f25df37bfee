"""Prints the Ray nodes of a cluster as JSON: name → address. It asks the head only.

``flambe status`` runs it on the orchestrator, with ``HOST:PORT`` as its argument.
"""

from __future__ import annotations

import importlib
import json
import sys

SECONDS = 10.0
ALIVE = 0  # see GcsNodeInfo.GcsNodeState in Ray's gcs.proto


def registered(address: str) -> dict[str, str]:
    """Return the nodes that are alive; each has a resource named after its host."""
    # Compiled, and without types.
    core = importlib.import_module("ray._raylet")
    nodes = core.GcsClient(address=address).get_all_node_info(timeout=SECONDS).values()
    return {
        name: str(node.node_manager_address)
        for node in nodes
        if node.state == ALIVE
        for name in node.resources_total
        if name == "orchestrator" or name.startswith("factory_")
    }


if __name__ == "__main__":
    json.dump(registered(sys.argv[1]), sys.stdout)
