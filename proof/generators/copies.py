"""Files that another program writes to while they are copied into the blob store.

The other program strikes at system calls of the copy, by chance: it writes in place, appends, cuts the file short, or
changes the file and changes it back. The generator knows the content of the file at every moment. A stored blob must
equal the file at one of these moments, and must have the name of its content; otherwise the store must refuse.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perdure.errors import UsageError
from perdure.store.blobs.directory import LocalBlobs
from perdure.store.blobs.user_files import CHUNK

from . import Violation


class Stranger:
    """The other program."""

    def __init__(self, dice: random.Random, path: Path, likely: float) -> None:
        self._dice = dice
        self._path = path
        self._likely = likely
        self._left = dice.randrange(4)
        self.moments = [path.read_bytes()]

    def strike(self) -> None:
        """Maybe change the file."""
        if self._left and self._dice.random() < self._likely:
            self._left -= 1
            dice, size = self._dice, self._path.stat().st_size
            kind = dice.choice(("write", "append", "cut"))
            with self._path.open("r+b") as file:
                if kind == "write" and size:
                    # At two places, of which the copy may have read one.
                    for place in sorted(dice.randrange(size) for _ in range(2)):
                        file.seek(place)
                        file.write(dice.randbytes(8)[: size - place])
                elif kind == "append":
                    file.seek(0, os.SEEK_END)
                    file.write(dice.randbytes(dice.choice((1, 5000))))
                else:
                    file.truncate(dice.randrange(size + 1))
            self.moments.append(self._path.read_bytes())


def history(seed: int) -> None:
    """Copy some files, one after the other.

    Raises:
        Violation: P1, a blob is no content that the file ever had, or has another name.
    """
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="perdure-generated-") as folder:
        blobs = LocalBlobs(f"{folder}/blobs")
        for number in range(2):
            path = Path(folder) / f"file{number}"
            path.write_bytes(dice.randbytes(1) * dice.choice((0, 5000, 2 * CHUNK, 3 * CHUNK + 7)))
            # Long ago, so that the time of the file alone tells of a change.
            os.utime(path, (1_000_000_000, 1_000_000_000))
            stranger = Stranger(dice, path, dice.choice((0.05, 0.3)))
            with between_calls(stranger.strike):
                try:
                    [(hash, size)] = blobs.put([str(path)])
                except UsageError:
                    continue
            kept = blobs.read(hash)
            if hashlib.sha256(kept).hexdigest() != hash or len(kept) != size:
                raise Violation(f"P1 a blob of {len(kept)} bytes has the name of other content")
            if kept not in stranger.moments:
                raise Violation(f"P1 the file had {len(stranger.moments)} contents; the blob is none of them")


@contextmanager
def between_calls(strike: Callable[[], None]) -> Iterator[None]:
    """Call `strike` around each read of a file and each look at a file."""
    real = {name: getattr(os, name) for name in ("readv", "fstat")}

    def around(name: str) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            strike()
            found = real[name](*given)
            strike()
            return found

        return call

    for name in real:
        setattr(os, name, around(name))
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)
