"""CP1 and CP2: checkpoints of a task's own making, over retries and over kills of the process."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.flyte.scripts import Scripts

from perdure.errors import UsageError
from perdure.flyte._checkpoint import KEPT, Checkpoint, latest_checkpoint

PLAIN_LOOP = """
@env.task(retries=2)
def count(n: int) -> int:
    checkpoint = flyte.ctx().checkpoint
    path = checkpoint.load_sync()
    start = int(path.read_bytes()) if path else 0
    for number in range(start, n):
        mark(f"n{number}")
        FAILURE
        checkpoint.save_sync(str(number + 1).encode())
    return start

if __name__ == "__main__":
    print(flyte.run(count, 6).outputs()[0])
"""

ASYNC_LOOP = """
@env.task(retries=2)
async def count(n: int) -> int:
    checkpoint = flyte.ctx().checkpoint
    path = await checkpoint.load()
    start = int(path.read_bytes()) if path else 0
    for number in range(start, n):
        mark(f"n{number}")
        FAILURE
        await checkpoint.save(str(number + 1).encode())
    return start

if __name__ == "__main__":
    print(flyte.run(count, 6).outputs()[0])
"""


@pytest.mark.parametrize("loop", [PLAIN_LOOP, ASYNC_LOOP], ids=["sync", "async"])
def test_a_body_without_durable_calls_goes_on_where_it_saved_last(scripts: Scripts, loop: str) -> None:
    """CP1. The family: killed once, killed twice, failed and tried again, killed in the second attempt."""
    scripts.write(loop.replace("FAILURE", "pass"))
    scripts.run("script.py", kill_at=3)
    assert scripts.run("script.py") == "2\n"
    assert scripts.marks() == ["n0", "n1", "n2", "n2", "n3", "n4", "n5"]
    scripts.run("script.py", kill_at=2)
    scripts.run("script.py", kill_at=4)
    assert scripts.run("script.py") == "2\n"
    assert scripts.marks() == ["n0", "n1", "n1", "n2", "n2", "n3", "n4", "n5"]
    failing = 'if number in (2, 4) and open("marks").read().split().count(f"n{number}") == 1: raise ValueError(number)'
    scripts.write(loop.replace("FAILURE", failing))
    assert scripts.run("script.py") == "4\n"
    assert scripts.marks() == ["n0", "n1", "n2", "n2", "n3", "n4", "n4", "n5"]
    scripts.run("script.py", kill_at=5)
    assert scripts.run("script.py") == "4\n"
    assert scripts.marks() == ["n0", "n1", "n2", "n2", "n3", "n3", "n4", "n4", "n5"]


def test_a_body_with_durable_calls_after_the_load_replays_the_same_path(scripts: Scripts) -> None:
    """CP1. The family: a kill at each of the steps, and a failed attempt in between."""
    scripts.write(
        """
        @flyte.trace
        async def step(number: int) -> int:
            mark(f"s{number}")
            return number

        @env.task(retries=1)
        async def count(n: int) -> int:
            checkpoint = flyte.ctx().checkpoint
            path = await checkpoint.load()
            start = int(path.read_bytes()) if path else 0
            total = 0
            for number in range(start, n):
                total += await step(number)
                await checkpoint.save(str(number + 1).encode())
                if number == 2 and not path:
                    raise ValueError(number)
            return start

        if __name__ == "__main__":
            print(flyte.run(count, 5).outputs()[0])
        """
    )
    assert scripts.run("script.py") == "3\n"
    assert scripts.marks() == ["s0", "s1", "s2", "s3", "s4"]
    for kill_at in range(1, 6):
        scripts.run("script.py", kill_at=kill_at)
        assert scripts.run("script.py") == "3\n"
        steps = ["s0", "s1", "s2", "s3", "s4"]
        assert scripts.marks() == [*steps[:kill_at], *steps[kill_at - 1 :]]


def test_bytes_files_and_directories_come_back(tmp_path: Path) -> None:
    places = str(tmp_path / "to"), str(tmp_path / "to")
    assert Checkpoint(*places).load_sync() is None
    Checkpoint(*places).save_sync(b"bytes")
    found = Checkpoint(*places).load_sync()
    assert found is not None
    assert (found.name, found.read_bytes()) == ("payload", b"bytes")
    (tmp_path / "file").write_text("file")
    Checkpoint(*places).save_sync(tmp_path / "file")
    found = Checkpoint(*places).load_sync()
    assert found is not None
    assert found.read_text() == "file"
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "last.ckpt").write_text("tree")
    Checkpoint(*places).save_sync(str(tmp_path / "tree"))
    found = Checkpoint(*places).load_sync()
    assert found is not None
    newest = latest_checkpoint(found)
    assert newest is not None
    assert newest.read_text() == "tree"
    with pytest.raises(UsageError, match="there is none at"):
        Checkpoint(*places).save_sync(tmp_path / "missing")


def test_a_checkpoint_that_was_being_written_is_not_loaded(tmp_path: Path) -> None:
    """CP2. What a killed process leaves is no version; the newest versions stay, older versions go."""
    place = tmp_path / "to"
    for number in range(KEPT + 3):
        Checkpoint(str(place)).save_sync(str(number).encode())
    (place / ".begun").mkdir()
    (place / ".begun" / "payload").write_bytes(b"half")
    found = Checkpoint(str(place), str(place)).load_sync()
    assert found is not None
    assert found.read_bytes() == str(KEPT + 2).encode()
    assert len([path for path in place.iterdir() if path.name.isdecimal()]) == KEPT + 1
