"""Random runs whose inputs, results and traces refer to files in many forms, and a collection in between.

Some runs have ended and may go, some wait in the queue. References stand in values as files and directories, nested,
and as the hash in a text. After the collection every file that a remaining run refers to is whole, and no file is left
that only removed runs referred to.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import perdure
from perdure.core.ground.clock import US, wall
from perdure.core.ground.model import FINISHED
from perdure.io import Dir, File
from perdure.upkeep.collecting import collect

from . import Violation

T = TypeVar("T")

env = perdure.TaskEnvironment("collected")
OLD = 3 * 86_400


@dataclass
class Box:
    """A record around a file."""

    name: str
    file: File


@perdure.trace
def passed(text: str) -> str:
    """A recorded text."""
    return text


@env.task
def takes_file(file: File, ends: bool) -> File:
    return _ended(file, ends)


@env.task
def takes_files(files: list[File], ends: bool) -> dict[str, File]:
    return _ended({"first": files[0]}, ends)


@env.task
def takes_box(box: Box, ends: bool) -> Box:
    return _ended(box, ends)


@env.task
def takes_dir(folder: Dir, ends: bool) -> Dir:
    return _ended(folder, ends)


@env.task
def takes_text(text: str, ends: bool) -> str:
    return _ended(passed(text), ends)


def _ended(value: T, ends: bool) -> T:
    if not ends:
        raise ValueError("this run fails")
    return value


def history(seed: int) -> None:
    """Some runs, and a collection of some statuses.

    Raises:
        Violation: G6, a referenced file is gone, or a file stays without a reference.
    """
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="perdure-generated-") as folder:
        perdure.init(f"{folder}/perdure.db", durability="process")
        try:
            _collected(dice, Path(folder))
        finally:
            perdure.init()


def _collected(dice: random.Random, folder: Path) -> None:
    contents: dict[str, set[bytes]] = {}
    for number in range(dice.randrange(1, 6)):
        name = f"run{number}"
        task, value, contents[name] = _case(dice, folder, number)
        if dice.random() < 0.3:
            perdure.with_runcontext(name=name).submit(task, value, True)
            continue
        try:
            perdure.with_runcontext(name=name).run(task, value, dice.random() < 0.7)
        except Exception as error:
            if "this run fails" not in str(error):
                raise
    [blobs] = folder.rglob("sha256")
    then = wall() / US - OLD
    for path in blobs.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
    statuses = frozenset(dice.sample(sorted(FINISHED, key=str), dice.randrange(1, len(FINISHED) + 1)))
    collect(timedelta(0), statuses)
    left = {run.name for run in perdure.runs()}
    kept = {path.name.removesuffix(".x") for path in blobs.rglob("*") if path.is_file()}
    for name, texts in contents.items():
        hashes = {hashlib.sha256(text).hexdigest() for text in texts}
        if name in left and not hashes <= kept:
            raise Violation(f"G6 {name} stays, and {len(hashes - kept)} of its files are gone")
        if name not in left and hashes & kept:
            raise Violation(f"G6 {name} was removed, and {len(hashes & kept)} of its files stay")


def _case(dice: random.Random, folder: Path, number: int) -> tuple[Any, Any, set[bytes]]:
    """A task, its input, and the contents that the input refers to."""

    def made(part: int) -> tuple[File, bytes]:
        content = f"content {number} {part} ".encode() + dice.randbytes(4)
        path = folder / f"made{number}-{part}"
        path.write_bytes(content)
        return File.from_local(path), content

    file, content = made(0)
    kind = dice.randrange(5)
    if kind == 0:
        return takes_file, file, {content}
    if kind == 1:
        other, more = made(1)
        return takes_files, [file, other], {content, more}
    if kind == 2:
        return takes_box, Box("box", file), {content}
    if kind == 3:
        top = folder / f"top{number}" / "sub"
        top.mkdir(parents=True)
        inside = content + b"inside"
        (top / "x").write_bytes(inside)
        return takes_dir, Dir.from_local(top.parent), {inside}
    before = dice.choice(("", "ab", "see ", "0" * 9))
    return takes_text, f"{before}{hashlib.sha256(content).hexdigest()}", {content}
