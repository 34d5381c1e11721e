"""Plant each fault, let the detectors loose on it, and write `proof/planted/CATCHES.md`: `python -m proof.planted`."""

from __future__ import annotations

import argparse
import re
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from . import table
from .detectors import PROOF, Detector, Finding, by_hand, run
from .plants import Plant, plants
from .trees import tree

BY_HAND_SECONDS = 120.0


def main() -> int:
    """1 where a fault is caught by nothing, or a detector finds a fault in sound code."""
    parser = argparse.ArgumentParser(prog="python -m proof.planted", description=__doc__)
    parser.add_argument("--only", action="append", metavar="ID", help="this plant alone; may be given several times")
    parser.add_argument("--missing", action="store_true", help="plants that lack a row, or a cell of it, alone")
    parser.add_argument("--quick", action="store_true", help="tests by hand only where the proof catches nothing")
    parser.add_argument("--gaps", action="store_true", help="the proof alone, on plants that the proof has not caught")
    parser.add_argument("--by-hand", action="store_true", help="the tests written by hand alone")
    parser.add_argument("--detector", metavar="NAME", help="this detector alone; the table stays as it is")
    parser.add_argument("--sound", action="store_true", help="let the detectors loose on sound code instead")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="plants at work at one time")
    given = parser.parse_args()
    known = plants()
    rows = table.read()
    wanted = [plant for plant in known if not given.only or plant.id in given.only]
    if given.missing:
        wanted = [plant for plant in wanted if plant.id not in rows or table.NOT_TRIED in rows[plant.id]]
    if given.gaps:
        wanted = [plant for plant in wanted if plant.id not in rows or not table.is_catch(rows[plant.id].proof)]
    if strangers := set(given.only or ()) - {plant.id for plant in known}:
        parser.error(f"there is no plant {', '.join(sorted(strangers))}")
    detectors = [one for one in PROOF if one.exists and given.detector in (None, one.name)]
    if given.sound:
        return sound(detectors)
    all_caught = True
    with ThreadPoolExecutor(given.jobs) as pool:
        working = {pool.submit(catch, detectors, given, rows.get(plant.id), plant): plant for plant in wanted}
        for work in as_completed(working):
            plant, row = working[work], work.result()
            print(f"{plant.id}: proof: {row.proof}; tests: {row.tests}", flush=True)
            all_caught &= row.is_caught
            if given.detector is None:
                table.put(plant.id, row)
    return 0 if all_caught else 1


def sound(detectors: list[Detector]) -> int:
    """Every detector has to find nothing in sound code, within half of its time."""
    wrong = 0
    with tree(None) as top:
        for one in detectors:
            found = run(one.command, top, one.seconds, one.env)
            print(f"{one.name}: {found.how} ({found.seconds:.0f} s of {one.seconds:.0f})", flush=True)
            wrong += found.caught
    return min(wrong, 1)


def catch(detectors: list[Detector], given: argparse.Namespace, known: table.Row | None, plant: Plant) -> table.Row:
    """What the proof and the tests written by hand say of one fault. With `--missing` and `--gaps`, what is known is
    not tried again."""
    keep = known is not None and (given.missing or given.gaps)
    proof, tests = known if known is not None and keep else (table.NOT_TRIED, table.NOT_TRIED)
    if given.gaps:
        proof = table.NOT_TRIED
    with tree(plant) as top:
        if proof == table.NOT_TRIED and not given.by_hand:
            proof = _proof(detectors, plant, top)
        command = by_hand(plant) if given.detector is None and not given.gaps else None
        if command is not None and tests == table.NOT_TRIED and not (given.quick and table.is_catch(proof)):
            tests = _told(run(command, top, BY_HAND_SECONDS, {"PERDURE_TEST_SAMPLE": "7"}))
    return table.Row(proof, tests)


def _proof(detectors: list[Detector], plant: Plant, top: Path) -> str:
    said = "no detector executes this code"
    for one in detectors:
        if not one.reaches(plant):
            continue
        found = run(one.command, top, one.seconds, one.env)
        if found.caught:
            return f"{one.name}{_seed(found)}, {found.seconds:.0f} s"
        said = "not caught"
    return said


def _seed(found: Finding) -> str:
    """Which of the seeds found the fault."""
    seed = re.search(r"\bseed (\d+)", found.how)
    return f" (seed {seed[1]})" if seed is not None else ""


def _told(found: Finding) -> str:
    if not found.caught:
        return "not caught" if found.how == "nothing" else found.how
    name = found.how.removeprefix("FAILED ").removeprefix("ERROR ").partition(" - ")[0].partition("[")[0]
    return f"{name}, {found.seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
