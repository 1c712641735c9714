"""A Ray cluster of several nodes on this machine, in a network namespace of its own, and the death of one of its nodes.

Ray takes the machine's outer address for its own; in a namespace there is loopback and nothing else, so nothing of it can be
reached from outside. A node is lost as a machine is: its raylet and every process that it started are killed at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from outrider.pool.on_ray import FAST_HEALTH_CHECKS

INSIDE = "--inside"
MEMORY_BYTES = 100 * 2**20
CPUS_PER_NODE = 2
"""One for a replica, and one for the replica of a node that died."""


def why_not() -> str | None:
    """Why there can be no cluster here; None where there can."""
    if find_spec("ray") is None:
        return 'Ray is not installed: pip install "outrider[ray]" (490 MB)'
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return "a network namespace needs Linux, root and the command ip"
    return None


def run_inside(module: str, arguments: Sequence[str]) -> int:
    """Run a benchmark again in a namespace, told so by ``INSIDE``; its exit code."""
    name = f"outrider-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        settings = [f"RAY_TMPDIR={folder}", "RAY_USAGE_STATS_ENABLED=0", f"PYTHONPATH={Path.cwd()}"]
        command = [sys.executable, "-m", module, INSIDE, *arguments]
        return subprocess.run(["ip", "netns", "exec", name, "env", *settings, *command], check=False).returncode
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        shutil.rmtree(folder, ignore_errors=True)


class Nodes:
    """A cluster that runs: its ``address``, and nodes that can be killed."""

    def __init__(self, cluster: Any, nodes: Sequence[Any]) -> None:
        self.address = str(cluster.address)
        self._nodes = nodes

    def find(self, names: Sequence[str]) -> str | None:
        """Of the nodes by these names (the beginnings of their ids) the first that is not the head, which holds the cluster."""
        return next((name for name in names for node in self._nodes[1:] if node.node_id.startswith(name)), None)

    def kill(self, name: str) -> None:
        """Every process of that node, at once."""
        node = next(node for node in self._nodes if node.node_id.startswith(name))
        raylet = node.all_processes["raylet"][0].process.pid
        for pid in (raylet, *_descendants(raylet)):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def cluster(num_nodes: int) -> Iterator[Nodes]:
    """So many nodes, the head among them, that live while the block runs."""
    from ray.cluster_utils import Cluster

    settings = {"num_cpus": CPUS_PER_NODE, "object_store_memory": MEMORY_BYTES}
    head = {**settings, "include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Nodes(made, [made.head_node, *(made.add_node(**settings) for _ in range(num_nodes - 1))])
    finally:
        made.shutdown()


def _descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [found for child in map(int, children) for found in (child, *_descendants(child))]
