"""Machines that are network namespaces: each has an address, and a cable to one bridge that can be cut. Needs root."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from functools import cache


class Network:
    """A bridge with this machine's address on it, and others' cables. Its names and its subnet are its own."""

    def __init__(self) -> None:
        self._tag = f"pd{secrets.token_hex(3)}"  # names of devices have 15 characters at most
        self.bridge = f"{self._tag}b"
        self._cables: list[str] = []
        # 198.18.0.0/15 is set aside for tests of networks (RFC 2544).
        self._prefix = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"
        self.address = f"{self._prefix}.1"
        self.subnet = f"{self._prefix}.0/24"
        try:
            _ip("link", "add", self.bridge, "type", "bridge")
            _ip("address", "add", f"{self.address}/24", "dev", self.bridge)
            _ip("link", "set", self.bridge, "up")
        except BaseException:
            self.close()
            raise

    def machine(self) -> Machine:
        """Another one, with a cable to the bridge."""
        name = f"{self._tag}n{len(self._cables)}"
        cable = f"{self._tag}c{len(self._cables)}"
        self._cables.append(name)
        _ip("netns", "add", name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", cable, "master", self.bridge, "up")
        _ip("-n", name, "address", "add", f"{self._prefix}.{len(self._cables) + 1}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", "eth0", "up")
        return Machine(name, cable)

    def close(self) -> None:
        """Remove all of it; the processes on those machines have ended."""
        for name in self._cables:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)


class Machine:
    """One namespace."""

    def __init__(self, name: str, cable: str) -> None:
        self.within = ("ip", "netns", "exec", name)
        """What a command is put behind to run there. It becomes that command, under the same process id."""
        self._cable = cable

    def cut(self) -> None:
        """Nothing gets through any more, in either direction, and neither side is told."""
        _ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        """As before; what waits to be sent again is sent again."""
        _ip("link", "set", self._cable, "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@cache
def why_not() -> str:
    """Why there can be no network here; empty if there can."""
    if shutil.which("ip") is None:
        return "needs the command ip (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    try:
        network = Network()
    except AssertionError as error:
        return f"needs bridges, which cannot be made here ({' '.join(str(error).split())})"
    try:
        network.machine()
    except AssertionError as error:
        return f"needs network namespaces, which cannot be made here ({' '.join(str(error).split())})"
    finally:
        network.close()
    return ""
