"""A copy of the project for one plant: hard links, and the file with the fault written apart from them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .plants import PROJECT, Plant

PARTS: Final = ("src", "tests", "proof", "scripts", "examples", "docs", "benchmarks")
FILES: Final = ("pyproject.toml", "README.md", "CHANGELOG.md", "Makefile", "constraints.txt")


PLACE: Final = PROJECT / ".planted"
"""On the file system of the project, for the links."""


@contextmanager
def tree(plant: Plant | None) -> Iterator[Path]:
    """A copy of the project with the fault in it; without a plant, a faithful copy.

    The copy has links to the files of the project, so no file of the copy is ever opened for writing: the file with
    the fault is a new file in place of its link. Compiled files are replaced, not written, by Python itself.
    """
    PLACE.mkdir(exist_ok=True)
    top = Path(tempfile.mkdtemp(dir=PLACE))
    try:
        for part in PARTS:
            shutil.copytree(PROJECT / part, top / part, copy_function=os.link, symlinks=True)
        for name in FILES:
            os.link(PROJECT / name, top / name)
        if plant is not None:
            _write(top, plant)
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _write(top: Path, plant: Plant) -> None:
    path = top / plant.file
    text = plant.applied(path.read_text(encoding="utf-8"))
    path.unlink()
    path.write_text(text, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
