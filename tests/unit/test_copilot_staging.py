"""Staging: exactly the inputs and nothing else, readable for all, the store's own copies, however often it begins."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers.copilot import Interface
from perdure.containers.copilot.names import distinct
from perdure.io import Dir, File

TYPES: dict[str, Any] = {
    "text": str,
    "file": File,
    "dir": Dir,
    "list": list[str],
    "files": list[File],
    "dirs": dict[str, Dir],
    "empty": list[int],
}


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    top = tmp_path_factory.mktemp("values")
    runtime.init(str(top / "perdure.db"))
    (top / "a.txt").write_text("A")
    (top / "tree" / "sub").mkdir(parents=True)
    (top / "tree" / "sub" / "leaf").write_text("green")
    (top / "tree" / "run").write_text("#!")
    (top / "tree" / "run").chmod(0o755)
    (top / "tree" / "link").symlink_to("sub/leaf")
    file, tree = File.from_local(top / "a.txt"), Dir.from_local(top / "tree")
    yield {
        "text": "x" * 1000,
        "file": file,
        "dir": tree,
        "list": ["a", "b"],
        "files": [file, file],
        "dirs": {"k": tree},
        "empty": [],
    }
    runtime.init()


@pytest.fixture(params=["DIRECT", "NAMED_DIR"])
def made(request: pytest.FixtureRequest) -> Interface:
    return Interface(TYPES, {}, layout=request.param, files=ContainerFiles())


def seen(top: Path) -> dict[str, tuple[int, bytes]]:
    """Every path with its mode and content."""
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        state = path.lstat()
        data = b"" if path.is_dir() else os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        found[str(path.relative_to(top))] = (state.st_mode, data)
    return found


def staged(made: Interface, values: dict[str, Any], to: Path) -> dict[str, tuple[int, bytes]]:
    to.mkdir(exist_ok=True)
    made.stage(values, str(to), "/var/inputs")
    return seen(to)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_user_can_read_inputs_under_any_umask(
    made: Interface, values: dict[str, Any], tmp_path: Path, umask: int
) -> None:
    (tmp_path / "in").mkdir()
    before = os.umask(umask)
    try:
        made.stage(values, str(tmp_path / "in"), "/var/inputs")
    finally:
        os.umask(before)
    for path, (mode, _) in seen(tmp_path / "in").items():
        if stat.S_ISDIR(mode):
            assert stat.S_IMODE(mode) == 0o755, path
        elif stat.S_ISREG(mode):
            assert mode & 0o444 == 0o444, path
            assert not mode & 0o022, path


def test_files_are_the_stores_own(made: Interface, values: dict[str, Any], tmp_path: Path) -> None:
    staged(made, values, tmp_path / "in")
    file, leaf = values["file"], values["dir"].files()["sub/leaf"]
    found = [path for path in (tmp_path / "in").rglob("*") if path.is_file() and not path.is_symlink()]
    shared = [path for path in found if any(os.path.samefile(path, of.path) for of in (file, leaf))]
    assert len(shared) == 4  # the file, twice in a list, and the leaf in the dict of directories
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in shared)


def test_staging_again_touches_nothing_that_is_right(made: Interface, values: dict[str, Any], tmp_path: Path) -> None:
    first = staged(made, values, tmp_path / "in")
    kept = [path for path in (tmp_path / "in").rglob("*") if "dirs" not in str(path)]
    inodes = {path: path.stat().st_ino for path in kept}
    assert staged(made, values, tmp_path / "in") == first
    assert {path: path.stat().st_ino for path in kept} == inodes


class Crash(BaseException):
    """The process dies here."""


CALLS = ("mkdir", "chmod", "fchmod", "link", "symlink", "replace", "rename", "unlink")


def dying_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let that many calls that change the disk happen, and die at the next one."""
    left = calls

    def counted(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            if left <= 0:
                raise Crash
            left -= 1
            return real(*args, **options)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def test_staging_that_died_anywhere_is_right_after_the_next(
    made: Interface, values: dict[str, Any], tmp_path: Path
) -> None:
    values["dir"].path  # noqa: B018 - in the store before, so that only staging is interrupted
    right = staged(made, values, tmp_path / "right")
    points = 0
    while True:
        place = tmp_path / f"{points}"
        place.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            dying_after(points, patch)
            try:
                made.stage(values, str(place), "/var/inputs")
                break
            except Crash:
                pass
        assert staged(made, values, place) == right, f"died after {points} calls"
        points += 1
        shutil.rmtree(place)
    assert points > 20


def test_leftovers_in_the_way_are_replaced(made: Interface, values: dict[str, Any], tmp_path: Path) -> None:
    right = staged(made, values, tmp_path / "right")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    for path in right:
        if path == ".":
            continue
        for kind in ("file", "folder", "link", "gone"):
            place = tmp_path / "in"
            staged(made, values, place)
            spot = place / path
            if not spot.parent.is_dir() or spot.parent.is_symlink():
                continue
            if spot.is_dir() and not spot.is_symlink():
                shutil.rmtree(spot)
            else:
                spot.unlink()
            match kind:
                case "file":
                    spot.write_text("wrong")
                case "folder":
                    (spot / "more").mkdir(parents=True)
                case "link":
                    spot.symlink_to(outside)
            assert staged(made, values, place) == right, (path, kind)
    assert (outside / "keep").read_text() == "kept"
    assert os.listdir(outside) == ["keep"]


def test_other_leftovers_are_removed(made: Interface, values: dict[str, Any], tmp_path: Path) -> None:
    right = staged(made, values, tmp_path / "in")
    (tmp_path / "in" / ".hidden").write_text("")
    (tmp_path / "in" / "inputs.yaml").write_text("")
    (tmp_path / "in" / "list" / "2").write_text("")
    (tmp_path / "in" / "empty" / "0").mkdir()
    assert staged(made, values, tmp_path / "in") == right


def test_text_of_the_same_length_is_replaced(made: Interface, values: dict[str, Any], tmp_path: Path) -> None:
    right = staged(made, values, tmp_path / "in")
    (tmp_path / "in" / "text").write_text("y" * 1000)
    assert staged(made, values, tmp_path / "in") == right


# -- names of files in a list ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.txt", "a-1.txt", "a.txt"], ["a.txt", "a-1.txt", "a-2.txt"]),
        (["a.txt", "a.txt", "a-1.txt"], ["a.txt", "a-2.txt", "a-1.txt"]),
        (["a.txt", "a.txt", "a.txt"], ["a.txt", "a-1.txt", "a-2.txt"]),
        (["a-1", "a", "a", "a-1"], ["a-1", "a", "a-2", "a-1-1"]),
        ([".rc", ".rc"], [".rc", ".rc-1"]),
        ([None, "1", None], ["0", "1", "2"]),
        ([None, None, "1"], ["0", "1-1", "1"]),
        (["x" * 255] * 2, ["x" * 255, "x" * 253 + "-1"]),
        (["." + "x" * 254] * 2, ["." + "x" * 254, "." + "x" * 252 + "-1"]),
        (["a." + "x" * 253] * 2, ["a." + "x" * 253, "a." + "x" * 251 + "-1"]),
    ],
)
def test_names_that_collide_are_numbered(names: list[str | None], expected: list[str]) -> None:
    assert distinct(names) == expected


@given(st.lists(st.sampled_from(["a", "a-1", "a-2", "a-1-1", "a.b", "a-1.b", "0", "1", None]), max_size=8))
def test_no_name_is_given_twice_and_the_first_of_each_stays(names: list[str | None]) -> None:
    found = distinct(names)
    assert len(set(found)) == len(names)
    for position, name in enumerate(names):
        if name is not None and name not in names[:position]:
            assert found[position] == name
