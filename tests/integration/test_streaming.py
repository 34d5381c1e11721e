"""Streams that runs write, on SQLite and on Postgres: followed live, resumed by offset, restarted with an attempt."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import programs, server
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import errors, runtime
from perdure.api import streaming
from perdure.upkeep.moving import move

env = perdure.TaskEnvironment(name="streaming")
apart = perdure.TaskEnvironment(name="streaming_apart", executor="process")
go_on = threading.Event()


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres" and programs() is None:
        pytest.skip("no Postgres here")
    url = server().url() if request.param == "postgres" else f"sqlite:///{tmp_path / 'perdure.db'}"
    perdure.init(store=url)
    go_on.clear()
    yield url
    perdure.init()


@perdure.trace
async def answers(words: list[str]) -> int:
    async with perdure.stream("answer", str) as out:
        for word in words:
            await out.write.aio(word)
    return len(words)


@perdure.trace
def answers_slowly(words: list[str]) -> None:
    with perdure.stream("answer", str) as out:
        for word in words:
            out.write(word)
        go_on.wait(PATIENCE)
        out.write("end")


@env.task
async def in_a_trace(words: list[str]) -> int:
    return await answers(words)


@env.task
async def in_a_slow_trace(words: list[str]) -> None:
    await answers_slowly.aio(words)


@env.task
async def in_a_body(words: list[str]) -> None:
    async with perdure.stream("answer", str) as out:
        for word in words:
            await out.write.aio(word)


@env.task
def in_a_sync_body(words: list[str]) -> None:
    with perdure.stream("answer", str) as out:
        for word in words:
            out.write(word)


@apart.task
async def in_another_process(words: list[str]) -> int:
    async with perdure.stream("body", int) as out:
        await out.write.aio(1)
        await out.write.aio(2)
    return await answers(words)


@env.task
async def fails_while_it_writes() -> None:
    async with perdure.stream("answer", str) as out:
        await out.write.aio("a")
        raise ValueError("no")


def finished(task: Any, *args: Any, name: str = "r") -> Any:
    return perdure.with_runcontext(name=name).run(task, *args)


def words_of(run: Any, **settings: int) -> list[str]:
    return [item.value for item in run.stream("answer", str, **settings)]


@pytest.mark.parametrize("task", [in_a_trace, in_a_body, in_a_sync_body])
def test_a_stream_is_read_whole_and_from_any_offset(task: Any) -> None:
    """P15. Family: items of a trace, of an async and of a sync body; offsets within, at and behind the end."""
    finished(task, ["a", "b", "c"])
    run = perdure.Run.get("r")
    assert list(run.stream("answer")) == [
        perdure.StreamItem("a", 1, 1, False),
        perdure.StreamItem("b", 2, 1, False),
        perdure.StreamItem("c", 3, 1, False),
    ]
    assert [words_of(run, after=offset) for offset in (1, 3, 4, 9)] == [["b", "c"], [], [], []]

    async def read() -> list[str]:
        return [item.value async for item in run.stream.aio("answer", str, after=1)]

    assert asyncio.run(read()) == ["b", "c"]
    assert list(run.stream("never")) == []


def test_a_body_in_another_process_writes_streams() -> None:
    run = finished(in_another_process, ["a", "b"])
    assert words_of(run) == ["a", "b"]
    assert [item.value for item in run.stream("body", int)] == [1, 2]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_reader_follows_live_by_the_bell(monkeypatch: pytest.MonkeyPatch, colour: str) -> None:
    """The fallback look is put off for a minute, so that only the bell can wake the reader in time."""
    monkeypatch.setattr(streaming, "HEARING_SECONDS", 60.0)
    thread = threading.Thread(target=finished, args=(in_a_slow_trace, ["a", "b"]))
    thread.start()
    run = wait_for(lambda: perdure.Run.get("r") if runtime.worker().store.run("r") else None)
    found: list[str] = []

    def take(word: str) -> None:
        found.append(word)
        if word == "b":
            assert run.status == "RUNNING"
            go_on.set()

    async def read() -> None:
        async for item in run.stream.aio("answer", str):
            take(item.value)

    began = time.monotonic()
    if colour == "async":
        asyncio.run(read())
    else:
        for item in run.stream("answer", str):
            take(item.value)
    thread.join()
    assert found == ["a", "b", "end"]
    assert time.monotonic() - began < 30


def test_the_end_of_a_failed_run_ends_the_reading() -> None:
    with pytest.raises(ValueError, match="no"):
        finished(fails_while_it_writes)
    assert words_of(perdure.Run.get("r")) == ["a"]


def test_a_long_stream_is_read_by_pages_while_the_writer_does_not_wait() -> None:
    """Family of lengths around the page of a reader and the batch of a writer, the end in a page of its own."""
    for length in (streaming.PAGE - 1, streaming.PAGE, 3 * streaming.FLUSH_ITEMS + 1):
        words = [str(number) for number in range(length)]
        assert words_of(finished(in_a_trace, words, name=f"r{length}")) == words


SCRIPT = """
import asyncio, sys
import perdure

env = perdure.TaskEnvironment("wf")

@perdure.trace
async def answers() -> None:
    async with perdure.stream("answer", int) as out:
        for number in range(3):
            await out.write.aio(number)
            await asyncio.sleep(0.1)
        await asyncio.sleep(60)

@env.task
async def main() -> None:
    await answers()

if __name__ == "__main__":
    perdure.init(store=sys.argv[1])
    perdure.with_runcontext(name="r").run(main)
"""


def test_a_reader_hears_of_the_restart_after_a_kill(url: str, tmp_path: Path) -> None:
    """P15, ST2: what a reader has seen stays; the first item of the second attempt says so, also behind an offset."""
    file = tmp_path / "wf.py"
    file.write_text(SCRIPT)
    first = start(file, url)
    run = wait_for(lambda: perdure.Run.get("r") if runtime.worker().store.run("r") else None)
    seen: list[perdure.StreamItem] = []
    reading = threading.Thread(target=lambda: seen.extend(run.stream("answer", int)))
    reading.start()
    wait_for(lambda: len(runtime.worker().store.streamed(run.row.id, "answer")) == 3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    second = start(file, url)
    wait_for(lambda: len(runtime.worker().store.streamed(run.row.id, "answer")) == 6)
    second.kill()
    second.wait()
    perdure.Run.get("r").abort()
    reading.join(PATIENCE)
    assert [(item.value, item.offset, item.attempt, item.restarted) for item in seen] == [
        (0, 1, 1, False), (1, 2, 1, False), (2, 3, 1, False),
        (0, 4, 2, True), (1, 5, 2, False), (2, 6, 2, False),
    ]  # fmt: skip
    assert list(run.stream("answer", int, after=3)) == seen[3:]
    assert list(run.stream("answer", int, after=2))[1].restarted


def start(file: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(file), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_misuse_is_refused_with_a_remedy() -> None:
    """Family: outside of a run, outside of the block, no name, an item of another type, a wrong offset or type."""
    with pytest.raises(errors.UsageError, match="outside of a run"), perdure.stream("answer", str):
        pass

    @env.task
    async def misuses() -> list[str]:
        texts: list[str] = []

        async def refused(work: Callable[[], Any]) -> None:
            try:
                await work()
            except errors.UsageError as error:
                texts.append(str(error))

        out = perdure.stream("answer", str)
        await refused(lambda: out.write.aio("a"))
        async with out:
            await refused(lambda: out.write.aio(3))
            await out.write.aio("a")
        return texts

    run = finished(misuses)
    assert "is not open: write inside of its `with`" in run.result[0]
    assert "str" in run.result[1]
    with pytest.raises(errors.UsageError, match="1 to 200 characters"):
        perdure.stream("")
    with pytest.raises(errors.UsageError, match="offset of an item"):
        run.stream("answer", after=-1)
    with pytest.raises(errors.ValueMismatchError):
        list(run.stream("answer", int))


def test_streams_move_with_their_run(tmp_path: Path) -> None:
    finished(in_a_body, ["a", "b"])
    move(runtime.store_url(), str(tmp_path / "other.db"))
    with pytest.raises(errors.RunMovedError):
        perdure.Run.get("r").stream("answer")
    perdure.init(store=tmp_path / "other.db")
    assert words_of(perdure.Run.get("r")) == ["a", "b"]


def command(url: str, *words: object) -> list[str]:
    return [sys.executable, "-m", "perdure", "stream", *map(str, words), "--store", url]


def test_the_command_line_prints_and_follows_a_stream(url: str, tmp_path: Path) -> None:
    """ST1. Family: what is there, behind an offset, as JSON, live until the run ends, and a name without items."""
    driver = threading.Thread(
        target=lambda: perdure.with_runcontext(name="r").run(in_a_slow_trace, ["one", "two"]), daemon=True
    )
    driver.start()

    def shown(*options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(url, "r", *options), cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    wait_for(lambda: "r" in [run.name for run in perdure.runs()])
    wait_for(lambda: shown("answer").stdout == "one\ntwo\n")
    assert shown("answer", "--after", 1).stdout == "two\n"
    assert shown("answer", "--after", 1, "--json").stdout == (
        '{"value": "two", "offset": 2, "attempt": 1, "restarted": false}\n'
    )
    none = shown("nothing")
    assert (none.returncode, none.stdout) == (0, "")
    with subprocess.Popen(
        command(url, "r", "answer", "--follow"), cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        assert [follower.stdout.readline() for _ in range(2)] == ["one\n", "two\n"]
        go_on.set()
        assert follower.stdout.read() == "end\n"
        assert follower.wait(PATIENCE) == 0
    driver.join(PATIENCE)
    assert (
        "no run is called"
        in subprocess.run(
            command(url, "unknown", "answer"), cwd=tmp_path, capture_output=True, text=True, check=False
        ).stderr
    )
