"""A Ray cluster on this machine, on the loopback, in a process of its own.

Reads commands, one JSON list per line, and answers each with a line: `["add", {...}]` a node, `["kill", number]` one.
At the end of the input the program ends all started processes and removes the directory.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import sys
from typing import Any

FRUGAL: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 * 2**20}


def pids(directory: str) -> set[int]:
    """All processes with an open file under the directory: every process of a Ray has a log there."""
    found = set()
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link).startswith(f"{directory}/"):
                found.add(int(link.split("/")[2]))
        except OSError:
            continue
    return found


def main(directory: str) -> None:
    import ray._private.utils
    from ray.cluster_utils import Cluster

    # It would become everybody's default on this machine.
    ray._private.utils.write_ray_address = lambda *_: None
    cluster = Cluster()
    nodes: list[Any] = []

    def add(**settings: Any) -> int:
        nodes.append(cluster.add_node(**FRUGAL, **settings))
        return len(nodes) - 1

    def kill(number: int) -> None:
        cluster.remove_node(nodes[number], allow_graceful=False)

    add(num_cpus=2, temp_dir=directory, env_vars={"NODE": "head"})
    print(json.dumps(cluster.address), flush=True)
    for line in sys.stdin:
        name, argument = json.loads(line)
        print(json.dumps(add(**argument) if name == "add" else kill(argument)), flush=True)


def end(directory: str, spared: set[int]) -> None:
    # Ray's agents outlive their node by minutes.
    while found := pids(directory) - spared:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    spared = {os.getpid(), os.getppid()}  # the tests' process is connected, too
    try:
        main(sys.argv[1])
    finally:
        end(sys.argv[1], spared)
        os._exit(0)  # Ray would look after nodes that are not there any more
