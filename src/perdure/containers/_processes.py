"""A container's main process, where the process runs on this machine."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import NamedTuple


class ProcessEnd(NamedTuple):
    """How a process ended, as far as the kernel still tells."""

    oom_killed: bool


if sys.platform == "linux":

    async def ended(pid: int, container: str) -> ProcessEnd | None:
        """Return when a container's process on this machine has ended; `None` at once where the kernel cannot tell
        (another process namespace, no control groups)."""
        if pid <= 0:
            return None
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return ProcessEnd(False)
        except OSError:
            return None
        try:
            # Only with the descriptor in hand: the number cannot be given to another process any more.
            groups = _cgroups(pid)
            if not any(container in path for path in groups.values()):
                return None
            loop = asyncio.get_running_loop()
            done: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, _settle, done)
            try:
                await done
            finally:
                loop.remove_reader(fd)
            return ProcessEnd(_oom_kills(groups) > 0)
        finally:
            os.close(fd)

    def _settle(done: asyncio.Future[None]) -> None:
        if not done.done():
            done.set_result(None)

    def _cgroups(pid: int) -> dict[str, str]:
        """Control groups by hierarchy; engines name groups after containers. Version 2 has the name ""."""
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                fields = [line.rstrip("\n").split(":", 2) for line in file]
        except OSError:
            return {}
        return {hierarchy: path for _, hierarchy, path in fields}

    def _oom_kills(groups: dict[str, str]) -> int:
        """The number of the group's processes that the kernel has killed for memory, if the group still exists."""
        if "memory" in groups:
            name = f"/sys/fs/cgroup/memory{groups['memory']}/memory.oom_control"
        else:
            name = f"/sys/fs/cgroup{groups.get('', '')}/memory.events"
        try:
            with open(name) as file:
                counts = dict(line.split() for line in file)
        except (OSError, ValueError):
            return 0
        return int(counts.get("oom_kill", 0))

else:

    async def ended(pid: int, container: str) -> ProcessEnd | None:
        """Engines run in virtual machines here."""
        return None
