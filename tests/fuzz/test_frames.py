"""Bytes of the other end of a socket, and manifests of any bytes: a frame or a tree, or a typed error.

Family: what another process or another writer gives. Frames of a pool process, the greeting of a process on a Ray node,
manifests of directories in the blob store.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.budget import bounded, damaged, examples, kept
from tests.fuzz.test_values import BYTES

from perdure.errors import UsageError
from perdure.executors import _frames as frames
from perdure.executors.on_ray import TOKEN, Listener
from perdure.store.blobs import manifest
from perdure.store.blobs.manifest import Listed

FRAMES: list[Any] = [
    frames.Idle(True), frames.Begun(), frames.NextAction(3), frames.Quiet(1, [1, 2], 0, [], [], False),
    frames.Stop(b"x"), frames.CacheGet(1, b"k" * 16),
    frames.BodyEnded(0, b"\xc0", False, 0.5, [1], [("f", 1, "g")], 0, 1, True, False),
]  # fmt: skip
WHOLE = st.sampled_from(FRAMES).map(msgspec.msgpack.encode)


def framed(data: bytes, length: int | None) -> bytes:
    return struct.pack("!Q", len(data) if length is None else length) + data


STREAMS = st.lists(
    st.builds(framed, WHOLE | damaged(WHOLE) | BYTES, st.none() | st.integers(0, 300) | st.integers(0, 2**64 - 1)),
    max_size=4,
).map(b"".join)


@kept("frames", "stream")
@given(stream=STREAMS | damaged(STREAMS))
@examples(300)
def test_any_stream_is_a_row_of_frames_and_an_error(stream: bytes) -> None:
    """The error is `Closed`, or one of the decoder, which the caller answers by ending the process."""
    ours, theirs = socket.socketpair()
    try:
        theirs.sendall(stream)
        theirs.close()
        channel = frames.Channel(ours, frames.ToParent)
        tracemalloc.start()
        with bounded():
            while received(channel):
                pass
        assert tracemalloc.get_traced_memory()[1] < 4 * frames.AT_FIRST + 20 * len(stream)
    finally:
        tracemalloc.stop()
        ours.close()
        theirs.close()


def received(channel: frames.Channel) -> bool:
    try:
        frame = channel.receive(5)
    except (frames.Closed, ValueError, RecursionError):
        return False
    assert isinstance(frame, frames._Frame)
    return True


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener("127.0.0.1")


KNOWN = "t" * TOKEN
GREETINGS = st.one_of(
    BYTES,
    st.builds(lambda token, line: token + line, st.sampled_from([KNOWN.encode(), b"x" * TOKEN, b"t" * (TOKEN - 1)]),
              BYTES | BYTES.map(lambda data: data + b"\n") | st.just(b'{"runs":"x","digest":""}\n')),
)  # fmt: skip


@given(data=GREETINGS | damaged(GREETINGS))
@examples(100)
def test_a_listener_outlives_any_greeting(listener: Listener, data: bytes) -> None:
    """N3: nothing but the token and a greeting lets a connection in, and the next process is let in all the same."""
    listener.expect(KNOWN)
    with socket.create_connection(listener.address) as wrong, contextlib.suppress(OSError):
        wrong.sendall(data)
        wrong.shutdown(socket.SHUT_WR)
    token = os.urandom(TOKEN // 2).hex()
    future = listener.expect(token)
    with socket.create_connection(listener.address) as right:
        right.sendall(token.encode() + b'{"runs":"r","digest":"d"}\n')
        sock, greeting = future.result(20)
        sock.close()
    assert greeting.runs == "r"


NAMES = st.lists(st.sampled_from([b"a", b"b", b"", b".", b"..", b"\0", b"\xff", b"x" * 300]), max_size=4).map(b"/".join)
REMOTE = st.tuples(st.text(max_size=5), st.text(max_size=5), st.binary(max_size=32)).map(msgspec.msgpack.encode)
LISTED = st.builds(
    Listed,
    NAMES,
    st.sampled_from(["dir", "file", "exec", "link", "remote", "remote exec", "", "x"]),
    st.one_of(st.just(b"h" * 32), NAMES, REMOTE, st.binary(max_size=40)),
    st.sampled_from([0, 1, -1, 1 << 62]),
)
MANIFESTS = st.builds(
    lambda kind, version, entries: msgspec.msgpack.encode([kind, version, entries]),
    st.sampled_from(["perdure.Dir", "perdure.Dir", "x"]), st.sampled_from([1, 2, 2, 3]),
    st.lists(LISTED, max_size=6).map(lambda entries: sorted(entries, key=lambda each: each.path))
    | st.lists(LISTED, max_size=4),
)  # fmt: skip


@kept("manifests")
@given(data=MANIFESTS | damaged(MANIFESTS) | BYTES)
@examples(400)
def test_any_manifest_lists_names_inside_of_the_directory_or_is_refused(data: bytes) -> None:
    """P11: no path leads out, and each file has a content."""
    with bounded():
        try:
            entries = manifest.decode(data, "top")
        except (ValueError, UsageError):
            return
    known = {entry.path: entry for entry in entries}
    assert len(known) == len(entries)
    for entry in entries:
        parts = entry.path.split(b"/")
        assert not {b"", b".", b".."}.intersection(parts)
        assert b"\0" not in entry.path
        assert 0 <= entry.size < 1 << 61
        for depth in range(1, len(parts)):
            assert known[b"/".join(parts[:depth])].kind == "dir"
        if entry.is_file:
            assert entry.kind.startswith("remote") or len(entry.content[2]) == 32


def test_a_silent_sender_is_waited_for_no_longer_than_asked() -> None:
    """A length is announced, and nothing follows."""
    ours, theirs = socket.socketpair()
    threading.Timer(0.05, theirs.sendall, (struct.pack("!Q", 1 << 40) + b"x",)).start()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        frames.Channel(ours, frames.ToParent).receive(0.5)
    assert time.monotonic() - begun < 30
    ours.close()
    theirs.close()
