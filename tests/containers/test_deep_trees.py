"""Trees that a container leaves: of any depth and with any permissions, they are read or copied, and removed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers.copilot import Interface
from perdure.containers.place import About, Place
from perdure.core.ground.trees import remove_tree
from perdure.errors import OutputParseError
from perdure.io import Dir

ABOUT = About(1, "ab", "run", 1, 1, "engine", "url")


def dig(top: str, depth: int, name: str = "d") -> None:
    """A directory in a directory in a directory, with a file at the bottom."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@pytest.fixture
def open_folder() -> Iterator[str]:
    """A directory that other users reach, too."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield folder
    remove_tree(folder)


@pytest.mark.parametrize(("depth", "name"), [(3, "d"), (1600, "d" * 100)])
def test_a_deep_tree_is_removed(tmp_path: Path, depth: int, name: str) -> None:
    """Deeper than Python recurses, than a path may be long, and than a process may have descriptors."""
    (tmp_path / "outside").write_text("stays")
    top = tmp_path / "top"
    top.mkdir()
    dig(str(top), depth, name)
    (top / "link").symlink_to(tmp_path / "outside")
    (top / "folder").symlink_to(tmp_path)
    remove_tree(str(top))
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    remove_tree(str(top))


def test_an_attempt_with_a_deep_output_is_cleared_and_made_again(tmp_path: Path) -> None:
    place = Place("deep", str(tmp_path / "deep"))
    place.make(ABOUT)
    dig(place.outputs, 1500)
    place.make(ABOUT)
    assert os.listdir(place.outputs) == []
    dig(place.outputs, 1500)
    place.clear()
    assert os.listdir(tmp_path) == []


def test_staging_over_a_deep_leftover(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    dig(str(tmp_path / "x"), 1500)
    Interface({"x": int}, {}, files=ContainerFiles()).stage({"x": 1}, str(tmp_path), "/in")
    assert (tmp_path / "x").read_text() == "1"


def as_ordinary_user(check: Callable[[], bool]) -> bool:
    """The answer of a check in a process of an ordinary user."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = int(check())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1)
    return bool(code)


def test_an_output_deeper_than_a_path_is_refused_in_a_short_message(tmp_path: Path) -> None:
    runtime.init(str(tmp_path / "perdure.db"))
    out = tmp_path / "out"
    (out / "x").mkdir(parents=True)
    dig(str(out / "x"), 100, "d" * 100)
    with pytest.raises(OutputParseError) as caught:
        Interface({}, {"x": Dir}, files=ContainerFiles()).collect(str(out))
    assert len(str(caught.value)) < 2500
    remove_tree(str(out))
    runtime.init()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")
@pytest.mark.parametrize("closed", ["nothing", "a file", "a directory", "a directory below", "the outputs", "deep"])
def test_closed_outputs_of_a_root_engine_are_copied(open_folder: str, closed: str) -> None:
    """An ordinary user takes the engine's copy of outputs that are closed to this user, also of closed directories."""
    place = Place("k", os.path.join(open_folder, "k"))
    os.makedirs(os.path.join(place.outputs, "sub", "below"))
    Path(place.outputs, "file").write_text("x")
    Path(place.outputs, "link").symlink_to("/root/secret")
    target = {"a file": "file", "a directory": "sub", "a directory below": "sub/below", "the outputs": ""}
    if closed in target:
        os.chmod(os.path.join(place.outputs, target[closed]), 0o600 if closed == "a file" else 0o700)
    if closed == "deep":
        dig(place.outputs, 1500)
    assert as_ordinary_user(place.is_readable) == (closed in ("nothing", "deep"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")
def test_a_directory_closed_to_its_owner_is_removed(open_folder: str) -> None:
    os.chmod(open_folder, 0o777)

    def made_and_removed() -> bool:
        top = os.path.join(open_folder, "top")
        os.makedirs(os.path.join(top, "a", "b"))
        os.chmod(os.path.join(top, "a", "b"), 0)
        os.chmod(os.path.join(top, "a"), 0)
        remove_tree(top)
        return not os.path.exists(top)

    assert as_ordinary_user(made_and_removed)


def test_one_entry_that_stays_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "top" / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/a", "sub/b"):
        (tmp_path / "top" / name).touch()
    plain = os.unlink

    def refusing(name: str, *, dir_fd: int | None = None) -> None:
        if name == "a":
            raise PermissionError(1, "not permitted", name)
        plain(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(PermissionError):
        remove_tree(str(tmp_path / "top"))
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "top").rglob("*") if path.is_file()) == ["a", "a"]
    shutil.rmtree(tmp_path / "top")
