"""A large file, or a directory of many, as the input of a container; or bind-mounted by the client alone.

The container itself tells what it sees: a file whose inode is one of the blob store's was not copied.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from statistics import median
from time import perf_counter

import perdure
from _common import emit, workdir
from _containers import Raw, parser, task, use
from perdure.containers.engine import Mount
from perdure.io import Dir, File

AGAIN = 3
LIST = 'find "$0" -type f -exec ls -i {} + > /var/outputs/seen'

arguments = parser(__doc__)
arguments.add_argument("--mode", choices=("raw", "perdure"), default="perdure")
arguments.add_argument("--what", choices=("file", "dir"), default="file")
arguments.add_argument("--bytes", type=int, default=1 << 30, help="of the file")
arguments.add_argument("--files", type=int, default=10_000, help="in the directory, of 1 KiB each")
options = arguments.parse_args()

kind = File if options.what == "file" else Dir
noop = task(options, "noop", "/bin/true")
taker = task(options, "taker", "/bin/true", inputs={"data": kind})
lister = task(
    options, "lister", "/bin/sh", "-c", LIST, "{{.inputs.data}}", inputs={"data": kind}, outputs={"seen": File}
)
env = perdure.TaskEnvironment(
    "bench", depends_on=[perdure.TaskEnvironment.from_task("containers", noop, taker, lister)]
)


def make(path: Path) -> None:
    if options.what == "file":
        block = os.urandom(1 << 20)
        with path.open("wb") as stream:
            for _ in range(options.bytes >> 20):
                stream.write(block)
        return
    for number in range(options.files):
        folder = path / f"{number % 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.bin").write_bytes(number.to_bytes(4, "big") * 256)


@env.task
async def main(path: str) -> tuple[list[float], File]:
    data = await (File.from_local.aio(path) if options.what == "file" else Dir.from_local.aio(path))
    await noop()  # warm
    taken = []
    for _ in range(1 + AGAIN):
        started = perf_counter()
        await taker(data=data)
        taken.append(perf_counter() - started)
    return taken, await lister(data=data)


async def raw(path: str) -> list[float]:
    engine = Raw(options)
    await engine.run("/bin/true")
    taken = []
    for _ in range(1 + AGAIN):
        started = perf_counter()
        await engine.run("/bin/true", mounts=(Mount(path, "/var/inputs/data", True),))
        taken.append(perf_counter() - started)
    await engine.client.close()
    return taken


def copied(listing: str, blobs: Path) -> tuple[int, int]:
    """How many files the container saw, and the bytes of those that are not the blob store's own."""
    own = {found.stat().st_ino for found in (blobs / "sha256").rglob("*") if found.is_file()}
    seen = [int(line.split()[0]) for line in listing.splitlines()]
    each = options.bytes if options.what == "file" else 1024
    return len(seen), each * sum(inode not in own for inode in seen)


if __name__ == "__main__":
    with workdir(options.dir) as directory:
        data = directory / "data"
        make(data)
        if options.mode == "raw":
            taken = asyncio.run(raw(str(data)))
            emit(median(taken[1:]), "s", first=taken[0])
        else:
            use(directory, options)
            taken, seen = perdure.run(main, path=str(data)).result
            with seen.open("r") as stream:
                files, bytes_copied = copied(stream.read(), directory / "perdure.db-blobs")
            wanted = 1 if options.what == "file" else options.files
            if files != wanted:
                raise SystemExit(f"the container saw {files} files instead of {wanted}")
            emit(median(taken[1:]), "s", first=taken[0], copied=bytes_copied)
