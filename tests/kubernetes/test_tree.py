"""Directories as objects in a bucket: a tree comes back as it was, and nothing is made outside of it."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import obstore
import pytest
from tests.bucket import endpoint

from perdure.containers.copilot import check_error_file
from perdure.containers.kubernetes import tree
from perdure.containers.kubernetes.tree import Item
from perdure.core.ground.trees import remove_tree
from perdure.errors import StoreError
from perdure.store import open_bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    endpoint().use(monkeypatch)
    return open_bucket(endpoint().bucket(), "some/where")


def brought(bucket: Any, target: Path) -> tree.Fetched:
    """All that was uploaded, with its content."""
    fetched = tree.fetch(bucket, str(target))
    assert fetched is not None
    for folder, _, names in os.walk(os.fsencode(target)):
        for name in names:
            fetched.bring(os.lstat(os.path.join(folder, name)))
    return fetched


def objects(bucket: Any) -> list[str]:
    return [meta["path"] for meta in bucket.list("outputs/")]


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
    assert tree.fetch(bucket, str(target)) is None
    assert tree.upload(str(source), bucket) == 4
    brought(bucket, target)
    assert sorted(os.walk(os.fsencode(target)), key=str)[0][2] == sorted(os.walk(os.fsencode(source)), key=str)[0][2]
    assert (target / "sub" / "b").read_bytes() == (source / "sub" / "b").read_bytes()
    assert (target / "sub" / "empty").is_dir()
    assert os.access(target / "sub" / "run", os.X_OK)
    assert os.readlink(target / "link") == "/etc/passwd"
    assert stat.S_ISFIFO(os.lstat(target / "pipe").st_mode)


def test_without_the_last_object_nothing_counts(bucket: Any, tmp_path: Path) -> None:
    """K3."""
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_text("x")
    (tmp_path / "to").mkdir()
    tree.upload(str(tmp_path / "from"), bucket)
    bucket.delete(tree.SUCCESS)
    assert tree.fetch(bucket, str(tmp_path / "to")) is None


def test_only_content_that_is_read_is_fetched(bucket: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    target.mkdir()
    content = {"small": b"x" * 100, "read": os.urandom(9000), "taken": os.urandom(9000), "refused": os.urandom(9000)}
    for name, data in content.items():
        (source / name).write_bytes(data)
    tree.upload(str(source), bucket)
    assert len(objects(bucket)) == 3
    fetched = tree.fetch(bucket, str(target))
    assert fetched is not None
    found = {name: os.stat(target / name) for name in content}
    assert {name: (state.st_size, state.st_blocks > 0) for name, state in found.items()} == {
        name: (len(data), name == "small") for name, data in content.items()
    }
    offered = []

    def take(hash: str, size: int, url: str) -> bool:
        offered.append((hash, size, url.partition("outputs/")[0]))
        return hash != sha256(content["refused"]).hexdigest()

    fetched.bring(found["read"])
    expected = sha256(content["taken"]).hexdigest(), 9000
    assert {name: fetched.blob(state, take) for name, state in found.items()} == {
        "small": None, "read": None, "taken": expected, "refused": None,
    }  # fmt: skip
    assert {url for *_, url in offered} == {f"{bucket.url}/"}
    assert len(offered) == 2
    assert {name: (target / name).read_bytes() == data for name, data in content.items()} == {
        "small": True, "read": True, "taken": False, "refused": True,
    }  # fmt: skip


def test_many_small_files_do_not_swell_the_list(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    for number in range(300):
        (tmp_path / "from" / f"{number:03}").write_bytes(b"%3d" % number + b"x" * 4000)
    assert tree.upload(str(tmp_path / "from"), bucket) == 300
    listed = bucket.get(tree.SUCCESS)
    assert 1_000_000 < len(listed) < 1_100_000
    assert len(objects(bucket)) == 300 - (1 << 20) // 4003
    brought(bucket, tmp_path / "to")
    assert [path.read_bytes()[:3] for path in sorted((tmp_path / "to").iterdir())] == [b"%3d" % n for n in range(300)]


@pytest.mark.parametrize("size", [100_000, 20 << 20])
def test_the_hash_is_of_the_content_that_was_sent(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The file may change during the upload: the content lies under its hash, and other runs rely on that."""
    place, put = tmp_path / "file", obstore.put
    place.write_bytes(b"a" * size)

    def between(*args: Any, **kwargs: Any) -> Any:
        place.write_bytes(b"b" * size)
        answer = put(*args, **kwargs)
        place.write_bytes(b"c" * size)
        return answer

    monkeypatch.setattr(obstore, "put", between)
    hash, sent = bucket.send(str(place), "object")
    data = bucket.get("object")
    assert (hash, sent) == (sha256(data).digest(), len(data))
    assert data == (b"a" if size == 100_000 else b"b") * size


@pytest.mark.parametrize("change", ["content", "gone"])
def test_a_damaged_object_is_named(bucket: Any, tmp_path: Path, change: str) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a").write_text("right" * 1000)
    (tmp_path / "to").mkdir()
    tree.upload(str(tmp_path / "from"), bucket)
    if change == "content":
        bucket.put("outputs/0", b"wrong" * 1000)
    else:
        bucket.delete("outputs/0")
    with pytest.raises(StoreError, match="outputs/0"):
        brought(bucket, tmp_path / "to")


@pytest.mark.parametrize(
    "items",
    [
        [Item(b"../a", "data")], [Item(b"/etc/a", "data")], [Item(b"x/../../a", "data")], [Item(b"a\0", "data")],
        [Item(b"l", "link", b"/tmp"), Item(b"l/a", "data")], [Item(b"a", "data"), Item(b"a", "data")],
        [Item(b"d", "dir"), Item(b"d/.", "data")], [Item(b"", "dir")],
        [Item(b"a", "file", b"short", 3, "outputs/0")], [Item(b"a", "exec", b"x" * 32, -1, "outputs/0")],
        [Item(b"/a", "data")], [Item(b"/a", "dir")], [Item(b"//a", "link", b"b")], [Item(b"a" * 256, "data")],
        [Item(b"a", "file", b"x" * 32, 1 << 62, "outputs/0")], [Item(b"a", "data", b"x", 1 << 62)],
        [Item(b"a", "file", b"x" * 32, 3, "../other/outputs/0")], [Item(b"a", "file", b"x" * 32, 3, "about")],
        [Item(b"a", "device")], [Item(b"a", "link")], [Item(b"a", "link", b"b\0")],
        [Item(b"a", "dir", b"", 0, "outputs/0")],
    ],
)  # fmt: skip
def test_nothing_leads_out_of_the_directory(bucket: Any, tmp_path: Path, items: list[Item]) -> None:
    bucket.put(tree.SUCCESS, msgspec.msgpack.encode((1, items)))
    (tmp_path / "to").mkdir()
    with pytest.raises(StoreError, match="damaged"):
        tree.fetch(bucket, str(tmp_path / "to"))
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(
    "item",
    [
        Item(b"/a", "data"), Item(b"a", "file", b"x" * 32, 1 << 62, "sha256/78/" + "78" * 31),
        Item(b"a", "file", b"x" * 32, 3, "outputs/0"), Item(b"a", "file", b"x" * 32, 3, "../blobs"),
    ],
)  # fmt: skip
def test_inputs_are_checked_as_outputs_are(bucket: Any, tmp_path: Path, item: Item) -> None:
    """One check for all manifests: also in the pod nothing is made outside, and only blobs are fetched."""
    bucket.put(tree.INPUTS, msgspec.msgpack.encode((1, [item])))
    (tmp_path / "to").mkdir()
    with pytest.raises(StoreError, match="damaged"):
        tree.download(bucket, tree.INPUTS, bucket, str(tmp_path / "to"))
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("depth", [1500, 1900])
def test_a_deep_tree_goes_through_the_bucket(bucket: Any, tmp_path: Path, depth: int) -> None:
    top = tmp_path / "from"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert tree.upload(str(top), bucket) == 0
    (tmp_path / "to").mkdir()
    assert tree.fetch(bucket, str(tmp_path / "to")) is not None
    for folder in (top, tmp_path / "to"):
        remove_tree(str(folder))  # pytest's own removal recurses
    assert sorted(tmp_path.iterdir()) == []


def test_inputs_may_be_brought_again(bucket: Any, tmp_path: Path) -> None:
    """The kubelet may run an init container again, over the files of the first."""
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


def test_an_error_file_of_any_size_is_not_fetched(bucket: Any, tmp_path: Path) -> None:
    """A container may leave an `_ERROR` of a terabyte; the process that drives the run has little room."""
    bucket.put(tree.SUCCESS, msgspec.msgpack.encode((1, [Item(b"_ERROR", "file", b"x" * 32, 1 << 40, "outputs/0")])))
    (tmp_path / "to").mkdir()
    fetched = tree.fetch(bucket, str(tmp_path / "to"))
    report = check_error_file(str(tmp_path / "to"), away=fetched)
    assert report is not None
    assert "1,099,511,627,776 bytes are too many" in report.text
