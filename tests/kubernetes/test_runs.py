"""A container task on Kubernetes, from the call to its value, with the real copilot and a real S3 endpoint."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

import perdure
from perdure import runtime
from perdure.errors import ContainerError, OutputMissingError, TaskTimeoutError
from perdure.extras import ContainerTask
from perdure.io import Dir, File
from perdure.store.blobs.client import Bucket

from .conftest import Setup
from .kubelets import Inside


def greets(inside: Inside) -> int:
    name = (inside.inputs / "name").read_text()
    inside.log(f"greeting {name}")
    (inside.outputs / "greeting").write_text(f"Hello, {name}")
    return 0


def greet(**settings: object) -> ContainerTask:
    return ContainerTask(
        name="greet", image="img:1", command=["/bin/greet", "{{.inputs.name}}"], inputs={"name": str},
        outputs={"greeting": str}, **settings,
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_task_gives_its_value_and_leaves_nothing(cluster: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    """K6."""
    cluster.kubelet.program = greets
    run = perdure.run(greet(), name="Ada")
    assert run.result == "Hello, Ada"
    [posted] = cluster.server.posted
    assert posted["spec"]["containers"][0]["args"] == ["/bin/greet", "Ada"]
    assert "[greet] greeting Ada" in capfd.readouterr().err
    perdure.init(cluster.store)
    assert cluster.server.pods() == []


def test_files_and_directories_go_through_the_bucket_both_ways(cluster: Setup) -> None:
    def program(inside: Inside) -> int:
        assert (inside.inputs / "data").read_bytes() == b"x" * 100_000
        assert not (inside.inputs / "data").is_symlink()
        tree = inside.inputs / "tree"
        assert (tree / "sub" / "a.txt").read_text() == "a"
        assert os.access(tree / "run.sh", os.X_OK)
        assert os.readlink(tree / "link") == "sub/a.txt"
        assert [path.read_text() for path in sorted((inside.inputs / "many").iterdir())] == ["1", "2"]
        (inside.outputs / "big").write_bytes((inside.inputs / "data").read_bytes() * 2)
        shutil.copytree(tree, inside.outputs / "copy", symlinks=True)
        (inside.outputs / "none").write_text("null")
        return 0

    cluster.kubelet.program = program
    source = cluster.folder / "data.bin"
    source.write_bytes(b"x" * 100_000)
    tree = cluster.folder / "t"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "a.txt").write_text("a")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("sub/a.txt")
    task = ContainerTask(
        name="files", image="img:1", inputs={"data": File, "tree": Dir, "many": list[int]},
        outputs={"big": File, "copy": Dir, "none": int | None},
    )  # fmt: skip
    given = Dir.from_local(tree)
    big, copied, none = perdure.run(task, data=File.from_local(source), tree=given, many=[1, 2]).result
    assert (big.name, big.size, none) == ("big", 200_000, None)
    assert copied.hash == given.hash


@pytest.mark.parametrize("copies", [True, False])
def test_files_that_come_out_stay_in_the_bucket(cluster: Setup, monkeypatch: pytest.MonkeyPatch, copies: bool) -> None:
    """But where it cannot copy them: they come here then, and go back."""
    big, part, text = os.urandom(9 << 20), os.urandom(1 << 20), "line\n" * 1000

    def program(inside: Inside) -> int:
        (inside.outputs / "big").write_bytes(big)
        (inside.outputs / "tree").mkdir()
        (inside.outputs / "tree" / "part").write_bytes(part)
        (inside.outputs / "tree" / "run").write_bytes(part[::-1])
        (inside.outputs / "tree" / "run").chmod(0o755)
        (inside.outputs / "tree" / "link").symlink_to("part")
        (inside.outputs / "files").mkdir()
        (inside.outputs / "files" / "0").write_bytes(big[::-1])
        (inside.outputs / "scratch").write_bytes(b"s" * 50_000)
        (inside.outputs / "text.txt").symlink_to("scratch.txt")
        (inside.outputs / "scratch.txt").write_text(text)
        return 0

    copied = []

    def copy(self: Bucket, key: str, to: str) -> bool:
        copied.append(to)
        return copies and plain(self, key, to)

    plain = Bucket.copy
    monkeypatch.setattr(Bucket, "copy", copy)
    cluster.kubelet.program = program
    task = ContainerTask(
        name="files", image="img:1", outputs={"big": File, "tree": Dir, "files": list[File], "text": str}
    )
    found, tree, files, read = perdure.run(task).result
    here = sum(path.stat().st_size for path in Path(runtime.blobs().root).rglob("*") if path.is_file())
    assert here < 10_000 if copies else here > 20 << 20
    assert len(copied) == 4
    assert read == text[:-1]
    with found.open() as stream:
        assert stream.read() == big
    with files[0].open() as stream:
        assert stream.read() == big[::-1]
    assert (found.name, found.size) == ("big", len(big))
    assert Path(tree.path, "link").read_bytes() == part
    assert Path(tree.path, "run").read_bytes() == part[::-1]
    assert os.access(Path(tree.path, "run"), os.X_OK)
    # The same as of one that was made here.
    made = cluster.folder / "tree"
    made.mkdir()
    (made / "part").write_bytes(part)
    (made / "run").write_bytes(part[::-1])
    (made / "run").chmod(0o755)
    (made / "link").symlink_to("part")
    assert Dir.from_local(made) == tree
    perdure.init("memory://")
    assert left_in_bucket(cluster) == []


def test_a_file_at_a_url_gets_there(cluster: Setup) -> None:
    def program(inside: Inside) -> int:
        (inside.outputs / "size").write_text(str(len((inside.inputs / "data").read_bytes())))
        return 0

    cluster.kubelet.program = program
    source = cluster.folder / "far.bin"
    source.write_bytes(b"y" * 70_000)
    task = ContainerTask(name="far", image="img:1", inputs={"data": File}, outputs={"size": int})
    far = File.from_local(source, remote_destination=f"{cluster.bucket}/elsewhere/far.bin")
    assert perdure.run(task, data=far).result == 70_000


def test_the_exit_code_is_the_pods_and_outputs_of_a_failure_do_not_count(cluster: Setup) -> None:
    """K3."""

    def program(inside: Inside) -> int:
        greets(inside)
        inside.log("now it breaks")
        return 7

    cluster.kubelet.program = program
    with pytest.raises(ContainerError, match="ended with exit code 7") as caught:
        perdure.run(greet(retries=1), name="Ada")
    assert caught.value.exit_code == 7
    assert "now it breaks" in str(caught.value)
    assert len(cluster.kubelet.ran) == len(set(cluster.kubelet.ran)) == 2


def test_an_error_file_is_the_programs_word(cluster: Setup) -> None:
    def program(inside: Inside) -> int:
        (inside.outputs / "_ERROR").write_text("non-recoverable\nno such customer")
        return 0

    cluster.kubelet.program = program
    with pytest.raises(ContainerError, match="no such customer"):
        perdure.run(greet(retries=3), name="Ada")
    assert len(cluster.kubelet.ran) == 1


def test_a_missing_output_is_said(cluster: Setup) -> None:
    with pytest.raises(OutputMissingError, match="greeting"):
        perdure.run(greet(), name="Ada")


def test_secrets_get_there_and_nowhere_else(cluster: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-hunter2")

    def program(inside: Inside) -> int:
        inside.log(f"the token is {inside.env['TOKEN']}")
        (inside.outputs / "greeting").write_text(inside.files["/etc/token"].decode()[:7] + inside.env["PLAIN"])
        return 0

    cluster.kubelet.program = program
    hidden = ["TOKEN", perdure.Secret("TOKEN", mount="/etc/token")]
    task = greet(secrets=hidden, env_vars={"PLAIN": " $(HOME)"})
    assert perdure.run(task, name="Ada").result == "hunter2 $(HOME)"
    assert "hunter2" not in str(cluster.server.posted)
    perdure.init("memory://")
    assert [name for kind, name in cluster.server.objects if kind == "secrets"] == ["bucket"]
    for path in cluster.folder.rglob("*"):
        if path.is_file():
            assert b"hunter2-hunter2" not in path.read_bytes(), path


def test_a_cached_outcome_makes_no_pod(cluster: Setup) -> None:
    cluster.kubelet.program = greets
    assert [perdure.run(greet(cache="auto"), name="Ada").result for _ in range(2)] == ["Hello, Ada"] * 2
    assert len(cluster.server.posted) == 1


def test_a_timeout_ends_the_pod(cluster: Setup) -> None:
    ended = threading.Event()

    def program(inside: Inside) -> int:
        ended.wait(30)
        return 0

    cluster.kubelet.program = program
    with pytest.raises(TaskTimeoutError):
        perdure.run(greet(timeout=3), name="Ada")
    ended.set()
    perdure.init("memory://")
    assert cluster.server.pods() == []
    assert cluster.server.posted[0]["spec"]["activeDeadlineSeconds"] > 20


def test_many_at_once_share_nothing(cluster: Setup) -> None:
    cluster.kubelet.program = greets
    names = [f"n{number}" for number in range(12)]
    task = greet(local_logs=False)
    env = perdure.TaskEnvironment.from_task("c", task)

    @perdure.TaskEnvironment("all", depends_on=[env]).task
    async def everyone() -> list[str]:
        return list(await asyncio.gather(*(task.aio(name=name) for name in names)))

    assert perdure.run(everyone).result == [f"Hello, {name}" for name in names]
    perdure.init("memory://")
    assert cluster.server.pods() == []
    assert left_in_bucket(cluster) == []


def left_in_bucket(cluster: Setup) -> list[str]:
    from perdure.store import open_bucket

    return [meta["path"] for meta in open_bucket(f"{cluster.bucket}/data", "attempts").list("")]
