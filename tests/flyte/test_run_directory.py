"""Files in the directory of a run: their content may change between a call and its replay."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.flyte.scripts import Scripts

CHANGING = """
from flyte.io import Dir, File

@env.task
async def look(file: File, number: int) -> int:
    mark(f"l{number}")
    async with file.open("rb") as stream:
        return int(bytes(await stream.read()))

@env.task
async def count(folder: Dir) -> int:
    mark("dir")
    return len([each async for each in folder.walk()])

@env.task
async def main() -> list[int]:
    base = flyte.ctx().run_base_dir
    os.makedirs(f"{base}/kept", exist_ok=True)
    file = File.from_existing_remote(f"{base}/kept/number.txt")
    found = []
    for number in range(1, 4):
        async with file.open("wb") as stream:
            await stream.write(str(number).encode())
        found.append(await look(File.from_existing_remote(f"{base}/kept/number.txt"), number))
    found.append(await count(Dir.from_existing_remote(f"{base}/kept")))
    return found

if __name__ == "__main__":
    print(flyte.run(main).outputs()[0])
"""


@pytest.mark.parametrize("kill_at", [0, 1, 2, 3, 4])
def test_a_call_with_a_file_that_changes_is_replayed(scripts: Scripts, kill_at: int) -> None:
    """The family: a file, a directory, kills in each of the calls."""
    scripts.write(CHANGING)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py") == "[1, 2, 3, 1]\n"


def test_the_directory_of_a_removed_run_is_removed(scripts: Scripts) -> None:
    scripts.write(
        """
        @env.task
        def main(fails: bool) -> None:
            flyte.ctx().checkpoint.save_sync(b"kept")
            print(flyte.ctx().run_base_dir)
            if fails:
                raise ValueError("no")

        if __name__ == "__main__":
            flyte.run(main, False)
            try:
                flyte.run(main, True)
            except ValueError:
                pass
        """
    )
    removed, kept = (Path(line) for line in scripts.run("script.py").splitlines())
    scripts.perdure("gc", "--older-than", "0s", "--status", "succeeded")
    assert not removed.exists()
    assert list(kept.rglob("payload"))
