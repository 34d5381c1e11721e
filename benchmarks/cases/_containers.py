"""What the container cases share: an engine that is there, the raw client on it, and tasks of no weight.

Each wants `--engine URL --image NAME`; `bench.py` starts private engines and gives both. By hand, with Docker there:

    python benchmarks/cases/container_noop.py --engine unix:///var/run/docker.sock --image busybox:1.36
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import _common
import perdure
from perdure.containers.docker import DockerEngine
from perdure.containers.engine import ContainerSpec, Mount
from perdure.extras import ContainerTask


def parser(description: str | None, *, count: int = 1) -> argparse.ArgumentParser:
    result = _common.parser(description, count=count)
    result.add_argument("--engine", required=True, help="the engine's URL")
    result.add_argument("--image", default="busybox:1.36", help="an image that has a shell and is there (busybox:1.36)")
    return result


def use(directory: Path, options: argparse.Namespace) -> None:
    perdure.init(store=f"sqlite:///{directory / 'perdure.db'}", container_engine=options.engine)


def task(options: argparse.Namespace, name: str, *command: str, **settings: Any) -> ContainerTask:
    return ContainerTask(
        name=name, image=options.image, command=command, network="none", local_logs=False, pull="never", **settings
    )


class Raw:
    """Containers as the engine's client alone makes them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.client = DockerEngine(options.engine)
        self._image = options.image
        self._serial = 0

    async def run(self, *command: str, mounts: tuple[Mount, ...] = ()) -> None:
        """Create, start, wait, remove."""
        self._serial += 1
        spec = ContainerSpec(image=self._image, entrypoint=command, command=(), network="none", mounts=mounts)
        id = await self.client.create(f"raw-{os.getpid()}-{self._serial}", spec)
        await self.client.start(id)
        await self.client.wait(id)
        await self.client.remove(id)
