"""The counts of a campaign as the table of docs/reliability.md: `python -m tests.torture.figures FILE`, where FILE was
written by `python -m tests.torture --json FILE`."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = ("simulated", "sqlite", "postgres", "faults")
UNHARMED = ("no kill", "lives with slow commits", "replay of the whole journal")
"""What real lives count besides faults."""


def row_of(kind: str, fault: str) -> str:
    """The row that a count of the campaign belongs to."""
    name, _, rest = fault.partition(": ")
    if kind in ("sqlite", "postgres"):
        return rest or name
    if name == "system call":
        return f"system call: {'SIGKILL' if rest == 'killed' else 'an error, or a short write'}"
    if kind == "faults":
        return name
    return fault.partition(" (")[0]


def rows(figures: dict[str, Any]) -> Iterator[str]:
    """The rows of the table, in Markdown."""
    table: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for kind, faults in figures["faults"].items():
        for fault, count in faults.items():
            row = row_of(kind, fault)
            if row not in UNHARMED:
                table[row][kind] = table[row].get(kind, 0) + count
    yield "| kind of fault | simulated | real, SQLite | real, Postgres | injected |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    yield "| histories | " + " | ".join(f"{figures['histories'].get(kind, 0):,}" for kind in KINDS) + " |"
    for row, counts in sorted(table.items()):
        yield f"| {row} | " + " | ".join(f"{counts[kind]:,}" if counts.get(kind) else "" for kind in KINDS) + " |"


if __name__ == "__main__":
    print(*rows(json.loads(Path(sys.argv[1]).read_text())), sep="\n")
