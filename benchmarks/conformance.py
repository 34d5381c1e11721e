"""Attack the promises of peers with perdure's conformance kit: `python benchmarks/conformance.py [PEER ...]`.

A peer is attacked where it makes the promise, as its documentation states it, with programs as its documentation writes
them; everything else is "not claimed". `make bench` installs the peers. The exit code is 0 also where a promise is
violated: a peer is measured, not tested.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from peers import DBOS, PEERS, RESTATE, Peer, restate_server
from perdure.testing.conformance import ProcessTrial, check

ATTACKED = Path(__file__).resolve().parent / "attacked"


@dataclass
class PeerSystem:
    """A peer whose programs are a script in `attacked/` (see `perdure.testing.conformance.System`)."""

    peer: Peer
    name: str
    script: str
    claims: frozenset[str]
    programs: frozenset[str]
    first: tuple[str, ...] = ()
    """Arguments in front of the program and the run."""
    outlives: bool = True
    lease: float = 2.0

    def trial(self, program: str, folder: Path) -> ProcessTrial:
        command = [str(self.peer.python), "flow.py", *self.first, program, f"run-{folder.name}"]
        return ProcessTrial(folder, command, {"flow.py": ATTACKED / self.script}, {})


# dbos states that completed steps are not executed again, that interrupted steps are, that a sleep is durable, and that
# a workflow with other steps than the recorded steps is stopped by an error. dbos guarantees no single driver (a second
# executor may run the same workflow for a while), and no order of outcomes in a plain gather (its own `asyncio_wait`
# records which tasks were done). Edited code, readings of time, containers and unpickling are outside of its promises.
SYSTEMS = (
    PeerSystem(
        DBOS, "dbos on SQLite", "dbos_flow.py", frozenset({"P1", "P2", "P5", "P7"}),
        frozenset({"steps", "slow-steps", "values", "fan-out", "child", "sleep", "asks"}),
    ),
    # restate states the same of steps and sleeps. Other steps than the recorded ones are an error that the server tries
    # again without end, which the kit cannot tell from work. The order of outcomes holds for its own combinators alone.
    PeerSystem(
        RESTATE, "restate, server and service lost together", "restate_flow.py", frozenset({"P1", "P2", "P7"}),
        frozenset({"steps", "slow-steps", "values", "child", "sleep"}), (str(restate_server() or "absent"),),
    ),
)  # fmt: skip


def main() -> int:
    """Attack each peer that is installed, and print its table."""
    parser = argparse.ArgumentParser(description="Attack the promises of peers.")
    parser.add_argument("peers", nargs="*", help=", ".join(system.peer.name for system in SYSTEMS))
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="try one in N moments of each attack")
    parser.add_argument("--seed", type=int, default=1, help="decides random moments and samples")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="histories at a time")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep what violated histories left")
    options = parser.parse_args()
    unknown = set(options.peers) - {peer.name for peer in PEERS}
    if unknown:
        parser.error(f"no peer {', '.join(sorted(unknown))}")
    for system in SYSTEMS:
        if options.peers and system.peer.name not in options.peers:
            continue
        why = system.peer.absent()
        if why is not None:
            print(f"{system.name}: {why}")
            continue
        report = check(system, sample=options.sample, seed=options.seed, jobs=options.jobs, keep=options.keep)
        print(f"{system.peer.name} {system.peer.version()}\n{report.table()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
