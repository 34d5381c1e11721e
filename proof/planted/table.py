"""The table of catches, `CATCHES.md`."""

from __future__ import annotations

import fcntl
from typing import Final, NamedTuple

from .plants import HERE, Plant, plants

PAGE: Final = HERE / "CATCHES.md"
_HEAD: Final = """# Planted faults and their detectors

Written by `python -m proof.planted`; [planted faults](../../docs/development/planted.md) explains the columns. Of
{count} faults the proof catches {proof} and the tests written by hand catch {tests}; {neither}.

| plant | breaks | in | caught by the proof | caught by a test written by hand |
| --- | --- | --- | --- | --- |
"""
NOT_TRIED: Final = "not tried"
_MISSES: Final = ("not caught", "no detector", "out of time", NOT_TRIED)


class Row(NamedTuple):
    """What caught a fault."""

    proof: str
    tests: str

    @property
    def is_caught(self) -> bool:
        """Whether anything has caught the fault."""
        return is_catch(self.proof) or is_catch(self.tests)


def is_catch(cell: str) -> bool:
    """Whether a cell of the table tells of a catch."""
    return not cell.startswith(_MISSES)


def read() -> dict[str, Row]:
    """The rows of the table, by plant."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else ():
        if line.startswith("| `"):
            plant, _, _, proof, tests = (cell.strip() for cell in line.strip("|").split("|"))
            rows[plant.strip("`")] = Row(proof, tests)
    return rows


def put(id: str, row: Row) -> None:
    """Write the row of a plant. Other processes may write at the same time."""
    with (HERE / "plants.py").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write(plants(), {**read(), id: row})


def write(known: list[Plant], rows: dict[str, Row]) -> None:
    """Write the rows of all known plants."""
    there = [(plant, rows[plant.id]) for plant in known if plant.id in rows]
    missed = [plant.id for plant, row in there if not row.is_caught]
    head = _HEAD.format(
        count=len(there),
        proof=sum(is_catch(row.proof) for _, row in there),
        tests=sum(is_catch(row.tests) for _, row in there),
        neither=f"nothing catches {', '.join(missed)}" if missed else "none is caught by nothing",
    )
    lines = [
        f"| `{plant.id}` | {plant.breaks} | `{plant.file.removeprefix('src/perdure/')}` | {row.proof} | {row.tests} |\n"
        for plant, row in there
    ]
    PAGE.write_text(head + "".join(lines), encoding="utf-8")
