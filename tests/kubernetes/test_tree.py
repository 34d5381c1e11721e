"""Directories as objects: what comes back is what was there, and nothing gets out of the directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.bucket import endpoint

from perdure.containers.kubernetes import tree
from perdure.containers.kubernetes.tree import Item
from perdure.errors import StoreError
from perdure.store import open_bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in endpoint().environment().items():
        monkeypatch.setenv(name, value)
    return open_bucket(endpoint().bucket(), "some/where")


def test_outputs_come_back_as_they_were(bucket: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "a").write_bytes(b"")
    (source / "sub" / "b").write_bytes(os.urandom(100_000))
    (source / "sub" / "run").write_text("x")
    (source / "sub" / "run").chmod(0o700)
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    Path(os.fsdecode(os.fsencode(source) + b"/n\xff\xfe")).write_text("odd")
    target.mkdir()
    assert not tree.fetch(bucket, str(target))
    assert tree.upload(str(source), bucket) == 4
    assert tree.fetch(bucket, str(target))
    assert sorted(os.walk(os.fsencode(target)), key=str)[0][2] == sorted(os.walk(os.fsencode(source)), key=str)[0][2]
    assert (target / "sub" / "b").read_bytes() == (source / "sub" / "b").read_bytes()
    assert (target / "sub" / "empty").is_dir()
    assert os.access(target / "sub" / "run", os.X_OK)
    assert os.readlink(target / "link") == "/etc/passwd"
    assert stat.S_ISFIFO(os.lstat(target / "pipe").st_mode)


def test_without_the_last_object_nothing_counts(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_text("x")
    (tmp_path / "to").mkdir()
    tree.upload(str(tmp_path / "from"), bucket)
    bucket.delete(tree.SUCCESS)
    assert not tree.fetch(bucket, str(tmp_path / "to"))


@pytest.mark.parametrize("change", ["content", "gone"])
def test_what_is_damaged_is_said(bucket: Any, tmp_path: Path, change: str) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_text("right")
    (tmp_path / "to").mkdir()
    tree.upload(str(tmp_path / "from"), bucket)
    if change == "content":
        bucket.put("outputs/0", b"wrong")
    else:
        bucket.delete("outputs/0")
    with pytest.raises(StoreError, match="outputs/0"):
        tree.fetch(bucket, str(tmp_path / "to"))


@pytest.mark.parametrize(
    "items",
    [
        [Item(b"../a", "data")], [Item(b"/etc/a", "data")], [Item(b"x/../../a", "data")], [Item(b"a\0", "data")],
        [Item(b"l", "link", b"/tmp"), Item(b"l/a", "data")], [Item(b"a", "data"), Item(b"a", "data")],
        [Item(b"d", "dir"), Item(b"d/.", "data")], [Item(b"", "dir")],
    ],
)  # fmt: skip
def test_nothing_leads_out_of_the_directory(bucket: Any, tmp_path: Path, items: list[Item]) -> None:
    bucket.put(tree.SUCCESS, msgspec.msgpack.encode((1, items)))
    (tmp_path / "to").mkdir()
    with pytest.raises(StoreError, match="damaged"):
        tree.fetch(bucket, str(tmp_path / "to"))
    assert list((tmp_path / "to").iterdir()) == []


def test_inputs_may_be_brought_again(bucket: Any, tmp_path: Path) -> None:
    """The kubelet may run an init container anew, over what the first one left."""
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "n").write_text("1")
    bucket.put(tree.INPUTS, tree.pack(str(staged)))
    target = tmp_path / "to"
    (target / "left" / "over").mkdir(parents=True)
    (target / "dangling").symlink_to("nowhere")
    for _ in range(2):
        assert tree.download(bucket, tree.INPUTS, bucket, str(target)) == 1
        assert [path.name for path in target.iterdir()] == ["n"]
    with pytest.raises(StoreError, match="their attempt is over"):
        tree.download(bucket, "others", bucket, str(target))
