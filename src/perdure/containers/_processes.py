"""A container's main process, where it is one of this machine's."""

from __future__ import annotations

import asyncio
import os
import sys

if sys.platform == "linux":

    async def ended(pid: int, container: str) -> bool:
        """For the processes of an engine on this machine: returns `True` when that one of that container has ended;
        `False` at once where it cannot be told (another process namespace, no control groups)."""
        if pid <= 0:
            return False
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        try:
            # Only with the descriptor in hand: the number cannot be given to another process any more.
            if not _belongs(pid, container):
                return False
            loop = asyncio.get_running_loop()
            done: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, _settle, done)
            try:
                await done
            finally:
                loop.remove_reader(fd)
            return True
        finally:
            os.close(fd)

    def _settle(done: asyncio.Future[None]) -> None:
        if not done.done():
            done.set_result(None)

    def _belongs(pid: int, container: str) -> bool:
        """Engines name a container's control groups after it."""
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                return container in file.read()
        except OSError:
            return False

else:

    async def ended(pid: int, container: str) -> bool:
        """Engines run in virtual machines here."""
        return False
