"""Workers that only hold a lease: `leaseholders.py URL PREFIX COUNT`. One process each; "id pid" is printed for each.

Each has temporary files of its own, as if on a machine of its own: other workers see no lock file and have to ask the
server whether the worker lives.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time

from perdure.core.process.lease import Lease
from perdure.errors import StoreError
from perdure.store import open_store
from perdure.store.postgres import PostgresStore

assert PostgresStore  # imported before the forks

LEASE = 15.0


def hold(url: str, name: str) -> None:
    """Hold the lease of the worker of that name until the process ends. The lease is renewed at every moment, since in
    production the renewal may fall into any moment of an outage."""
    tempfile.tempdir = tempfile.mkdtemp()
    store, liveness = open_store(url)
    lease = Lease(name, store, liveness, store.clock, {}, seconds=LEASE)
    lease.attend()
    os.write(1, f"{name} {os.getpid()}\n".encode())
    while True:
        time.sleep(0.05)
        try:
            store.renew(lease.row())
        except StoreError:
            pass


def main() -> None:
    """Fork the holders, and end with them when the input ends."""
    children = []
    for number in range(int(sys.argv[3])):
        pid = os.fork()
        if pid == 0:
            hold(sys.argv[1], f"{sys.argv[2]}{number}")
        children.append(pid)
    sys.stdin.read()
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
