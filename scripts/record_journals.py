"""Record the corpus of journals for the present schema and segment format: `python scripts/record_journals.py`.

The programs of the newest version are copied for a new version. Recordings of an older version are never written again:
they are what today's code has to read. `--again` records the present version once more, which is right only until the
first release with that version.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.corpus.recorded import DATABASE, HERE, TODAY, Recording, dump, live, open_again, recordings

PROGRAMS: dict[str, tuple[int, ...]] = {
    "in_turn": (0, 5),
    "in_turn_sync": (0, 4),
    "gathered": (0, 11),
    "from_threads": (0,),
    "children": (0, 9),
    "in_process": (0, 3),
    "retried": (0, 7),
    "failures": (0, 3),
    "failed": (0,),
    "readings": (0,),
    "sleeps": (0, 2),
    "timeouts": (0, 4),
    "cancelled": (0, 5),
    "generators": (0, 8),
    "values": (0,),
    "cached": (0,),
    "messages": (0, 1, 2),
}
"""Each program, and the steps at which it is cut; 0 lets it end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="replace the recordings of the present version")
    again = parser.parse_args().again
    folder = HERE / TODAY
    if recordings_of_today(folder) and not again:
        sys.exit(
            f"{folder} has recordings already. They stay as they are; --again replaces those of the present version"
        )
    if not folder.exists():
        folder.mkdir()
        newest = max((path for path in HERE.glob("*-*") if path != folder), key=lambda path: path.stat().st_mtime_ns)
        shutil.copyfile(newest / "programs.py", folder / "programs.py")
    for old in folder.glob("*.sql.gz"):
        old.unlink()
    rows = [record(folder, name, cut) for name, cuts in PROGRAMS.items() for cut in cuts]
    (folder / "expected.json").write_text(json.dumps([row[1:] for row in rows], indent=1) + "\n")
    print(f"{len(rows)} recordings, {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


def recordings_of_today(folder: Path) -> list[Recording]:
    """What there is already."""
    return recordings(TODAY) if (folder / "expected.json").exists() else []


def record(folder: Path, name: str, cut: int) -> Recording:
    """Execute a program, keep its store, and find out its result."""
    with tempfile.TemporaryDirectory() as place:
        where = Path(place)
        shutil.copyfile(folder / "programs.py", where / "programs.py")
        first = live(where, name, cut=cut)
        if first.code != (-9 if cut else 0):
            sys.exit(f"{name}, cut at {cut}: exit code {first.code}\n{first.errors}")
        store = dump(where / DATABASE)
        if not cut:
            open_again(where)
        last = live(where, name, earlier=first.steps)
        if last.code != 0 or (not cut and (last.steps or last.result != first.result)):
            sys.exit(f"{name}, cut at {cut}, carried on: {last}")
    recording = Recording(TODAY, name, cut, last.result, sorted(last.steps), first.steps)
    recording.file.write_bytes(store)
    return recording


if __name__ == "__main__":
    main()
