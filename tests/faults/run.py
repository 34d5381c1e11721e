"""Random faults for as long as asked: `run_faults`, and `python -m tests.faults.run SECONDS [SEED]`.

Which faults there are, and where they strike, stands in docs/development/faults.md.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.crash.harness import Hosts
from tests.faults.cuts import cutting
from tests.faults.freezing import freeze
from tests.faults.syscalls import Place, counted, points, short_writes, trial
from tests.faults.upkeep import MODES, Upkeep
from tests.postgres_server import Server, programs
from tests.power.histories import PROGRAMS, Histories


class Kind(NamedTuple):
    """A kind of fault."""

    weight: int
    """How often the kind is chosen."""
    trial: Callable[[random.Random], str]
    """One trial; a word for how the faulty process ended."""


FaultKinds = dict[str, Kind]


class Faults(NamedTuple):
    """What a torture has done and found."""

    counts: dict[str, int]
    """Trials by kind of fault and how the faulty process ended."""
    violations: list[str]
    """Broken promises, each with the seed that repeats the choice of the trial."""


def run_faults(seed: int, seconds: float) -> Faults:
    """Inject random faults into real processes until the time is over. A kind that this machine cannot inject (no
    strace, no Postgres server) is left out, and its count is missing.

    Args:
        seed: chooses the trials. The interleaving of processes is the machine's.
        seconds: no trial begins later.
    """
    counts: Counter[str] = Counter()
    violations: list[str] = []
    end = time.monotonic() + seconds
    with fault_kinds() as kinds:
        while time.monotonic() < end:
            name, ended, wrong = one_trial(kinds, seed)
            counts[f"{name}: {ended}"] += 1
            violations += [f"seed {seed}, {text}" for text in wrong]
            seed += 1
    return Faults(dict(counts), violations)


class Tried(NamedTuple):
    """A trial of one fault."""

    kind: str
    ended: str
    """How the faulty process ended."""
    violations: list[str]


def one_trial(kinds: FaultKinds, seed: int) -> Tried:
    """One trial, of a kind and at a place that the seed chooses."""
    dice = random.Random(seed)
    name = dice.choice([name for name, (weight, _) in kinds.items() for _ in range(weight)])
    try:
        return Tried(name, kinds[name].trial(dice), [])
    except AssertionError as error:
        return Tried(name, "violation", [f"{name}: {error}"])


@contextmanager
def fault_kinds() -> Iterator[FaultKinds]:
    """The kinds of faults that this machine can inject."""
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="perdure-faults-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        hosts = Hosts(base, 1)
        stack.callback(hosts.close)
        fresh = (base / f"trial{number}" for number in range(1 << 30))
        kinds = {"freeze": Kind(1, lambda dice: freeze(hosts, next(fresh), dice))}
        if shutil.which("strace") is not None:
            faults = points(counted(Place(hosts, base / "count"))) + short_writes()
            kinds["system call"] = Kind(12, lambda dice: trial(hosts, next(fresh), dice.choice(faults)))
            upkeep = {mode: Upkeep(hosts, base / mode, mode) for mode in MODES}
            kinds["system call in upkeep"] = Kind(4, lambda dice: upkeep[dice.choice(MODES)].trial(dice))
            histories = Histories(base / "histories")
            kinds["power loss"] = Kind(6, lambda dice: histories.trial(dice.choice(PROGRAMS), dice))
        if (folder := programs()) is not None:
            server = Server(folder)
            stack.callback(server.close)
            warm = Hosts(base, 1, {"PERDURE_TEST_STORE": "postgres"})
            stack.callback(warm.close)
            cuts = stack.enter_context(cutting(warm, base / "cuts", server))
            count = cuts.messages()

            def cut(dice: random.Random) -> str:
                after = dice.random() < 0.5
                return ("after" if after else "before") if cuts.trial(dice.randrange(count), after) else "not reached"

            kinds["cut connection"] = Kind(6, cut)
            kinds["server ends"] = Kind(2, cuts.outage)
        yield kinds


def main() -> None:
    """Torture for so many seconds, and print what came of it; exit code 1 if a promise was broken."""
    found = run_faults(int(sys.argv[2]) if len(sys.argv) > 2 else 0, float(sys.argv[1]))
    for name, count in sorted(found.counts.items()):
        print(f"{count:6} {name}")
    for violation in found.violations:
        print(violation)
    sys.exit(bool(found.violations))


if __name__ == "__main__":
    main()
