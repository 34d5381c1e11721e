"""The frames between the two ends of a pool child's socket: MessagePack, each with its length.

Values and exceptions cross in their journal encoding; no other data of the user crosses (P11).
"""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections import deque
from typing import Any, NamedTuple

import msgspec

from ..core.ground.clock import seconds as clock_seconds
from ..core.ground.model import (
    Action,
    ActionState,
    CachePut,
    Entry,
    NewMessage,
    Publication,
    RunRow,
    Source,
    Streamed,
    Take,
)


class _Frame(msgspec.Struct, array_like=True, tag=True):
    """Tagged with the name of the class."""


# -- to the child ----------------------------------------------------------------------------------------------


class Hello(_Frame):
    """The first frame: the settings that a child takes over from its parent."""

    path: list[str]
    argv: list[str]
    store_id: str
    store_url: str
    blobs: str
    log_level: int


class Assign(_Frame):
    """Execute the body of an action."""

    run: RunRow
    fresh: bool
    target: str
    module: str
    """The name under which the outer process has imported the code's module; empty for `__main__`."""
    action: int
    path: bytes
    """See `core.body.branch.path_below`."""
    name: str
    label: str | None
    inputs: bytes
    attempt: int
    floor: int
    recorded: bool
    undrained: list[int]
    accepts: bool
    """See `Driver.accepts`."""
    cancel: str | None
    """The reason, if the run is being cancelled and the body itself has to hear of that (E7)."""


class Free(_Frame):
    """Whether new calls may start, as of the child's report with that number (E4)."""

    report: int
    free: bool


class CancelBody(_Frame):
    """The run is being cancelled, and the body itself has to hear of that (E7)."""

    reason: str


class GiveUp(_Frame):
    """The cancellation that a body waits for will not come."""

    action: int


class Answer(_Frame):
    """The answer to the question with that ticket."""

    ticket: int
    value: msgspec.Raw


# -- from the child --------------------------------------------------------------------------------------------


class Entries(_Frame):
    """Asks for the entries of an action's body."""

    ticket: int
    action: int


class Actions(_Frame):
    """Asks for the actions under a parent."""

    ticket: int
    parent: int


class CacheGet(_Frame):
    """Asks for a cached outcome."""

    ticket: int
    key: bytes


class NextAction(_Frame):
    """Asks for an action's number."""

    ticket: int


class SourceId(_Frame):
    """Asks for the number of a snapshot."""

    ticket: int
    source: Source


class SourceOf(_Frame):
    """Asks for the source snapshot with that number."""

    ticket: int
    id: int


class Commit(_Frame):
    """Asks to write rows in one transaction. The answer is the number before the first entry."""

    ticket: int
    entries: list[Entry]
    actions: list[Action]
    states: list[ActionState]
    cache: list[CachePut]
    takes: list[Take]
    """Their entries are counted as those of `entries`, from 1."""
    published: list[Publication]
    streamed: list[Streamed]


class Await(_Frame):
    """Asks for the next message of a box, for the action's call. The answer is a `Message`, as soon as there is one."""

    ticket: int
    box: str
    action: int


class Left(_Frame):
    """The call with that ticket waits no longer."""

    ticket: int
    got: bool
    """Whether the answer has arrived."""


class PutBack(_Frame):
    """The call takes nothing after all."""

    number: int


class FindRun(_Frame):
    """Asks for the run of a name."""

    ticket: int
    name: str


class FindAddressee(_Frame):
    """Asks for what the sender of a message has to know. The answer is an `Addressee`."""

    ticket: int
    name: str
    box: str


class Send(_Frame):
    """Asks to send a message to a run. The answer is a `SendAnswer`."""

    ticket: int
    run: int
    message: NewMessage


class Publish(_Frame):
    """Asks to publish values and items of the run at once. The answer says whether the claim still holds."""

    ticket: int
    published: list[Publication]
    streamed: list[Streamed]


class LastStreamed(_Frame):
    """Asks for the last item of a stream of the run."""

    ticket: int
    name: str


class Retries(_Frame):
    """As `RetryStrategy`."""

    count: int
    backoff: tuple[float, float, float, float] | None


class Needs(msgspec.Struct, frozen=True, array_like=True):
    """The resources of a body on its machine."""

    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes."""
    gpu: int = 0


class Within(NamedTuple):
    """An action whose body led to a call."""

    action: int
    path: bytes
    """See `core.body.branch.path_below`."""


class Delegate(_Frame):
    """Asks to carry out a task that cannot execute in the child. The answer is a `Final`."""

    ticket: int
    action: Action
    inputs: bytes
    floor: int
    recorded: bool
    within: list[Within]
    """The actions whose bodies led to this call, innermost first, without the child's own body."""
    name: str
    target: str
    module: str
    variable: str
    """Where a container task is found in its module; empty for a task whose body executes in a process."""
    retries: Retries
    timeout: float | None
    env_vars: dict[str, str]
    executor: str
    resources: Needs | None


class Cancel(_Frame):
    """The call is given up."""

    ticket: int


class Begun(_Frame):
    """The code is loaded, and the body begins."""


class Undrained(_Frame):
    """A report of recorded outcomes to be delivered, or actions to be called again (E4)."""

    report: int
    added: list[int]
    removed: list[int]


class Idle(_Frame):
    """Whether the child has nothing to do but to wait for something durable."""

    waits: bool


class Quiet(_Frame):
    """None of the child's bodies can move by itself; as of that number of received frames (E5)."""

    received: int
    open: list[int]
    replaying: int
    awaiting: list[int]
    uncalled: list[Action]
    still: bool


class Stop(_Frame):
    """The run may not be driven any further: a mismatch, a broken store."""

    error: bytes


class BodyEnded(_Frame):
    """The body is over."""

    result: int
    data: bytes
    final: bool
    pause: float
    """As `Failure.pause`."""
    discards: list[int]
    frames: list[tuple[str, int, str]]
    """File, line and function of the failure's traceback, outermost first."""
    replayed: int
    executed: int
    reusable: bool
    """Whether the child may be given another body."""
    cancelled: bool
    """Whether the code has heard of the cancellation of the run."""


class Final(_Frame):
    """The answer to `Delegate`: the end of the task, and the rows to write together with the outcome."""

    result: int
    data: bytes
    frames: list[tuple[str, int, str]]
    marks: list[tuple[int, int, int]]
    actions: list[Action]
    states: list[ActionState]
    cache: list[CachePut]


ToChild = Hello | Assign | Free | CancelBody | GiveUp | Answer
ToParent = (
    Entries | Actions | CacheGet | NextAction | SourceId | SourceOf | Commit | Await | Left | PutBack
    | FindRun | FindAddressee | Send | Publish | LastStreamed | Delegate | Cancel | Begun | Undrained
    | Idle | Quiet | Stop | BodyEnded
)  # fmt: skip

AT_ONCE = 16 * 1024
"""A socket with room in its buffer takes so many bytes without waiting: room means three quarters free."""

AT_FIRST = 1024 * 1024
"""Bytes of memory for a frame before any byte has arrived. More memory follows the bytes, not the announced length."""

HUNG_UP = 129
"""The exit code of a process on another machine whose connection is gone; the shell's code for SIGHUP."""

_LENGTH = struct.Struct("!Q")
_encoder = msgspec.msgpack.Encoder()


class Closed(Exception):
    """The other end is gone."""


class Channel:
    """One end of the socket. Any thread may send, without waiting for the other end; one thread receives.

    A sender may hold locks that the receiver of the other end waits for. So a frame that does not fit into the socket's
    buffer goes to a thread of its own, which ends after the last frame.
    """

    def __init__(self, sock: socket.socket, receives: Any, process: int | None = None) -> None:
        """`process`: a descriptor, readable after the process at the other end has ended. Forked processes may keep the
        other end of the socket open longer."""
        self._socket = sock
        self._number = sock.fileno()
        self._decoder = msgspec.msgpack.Decoder(receives)
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._sending = False
        """A thread sends the waiting frames."""
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        if process is not None:
            self._poll.register(process, select.POLLIN)
        self._room = select.poll()
        self._room.register(sock, select.POLLOUT)

    def send(self, frame: Any) -> None:
        """Send. The receiver finds out that the other end is gone."""
        data = _encoder.encode(frame)
        with self._lock:
            if not self._sending and len(data) < AT_ONCE and self._room.poll(0):
                self._write(data)
                return
            self._waiting.append(data)
            if self._sending:
                return
            self._sending = True
        threading.Thread(target=self._send_waiting, name="perdure-sender", daemon=True).start()

    def _send_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._sending = False
                    return
                data = self._waiting.popleft()
            self._write(data)

    def _write(self, data: bytes) -> None:
        length = _LENGTH.pack(len(data))
        try:
            if len(data) < AT_ONCE:
                self._socket.sendall(length + data)
            else:
                self._socket.sendall(length)
                self._socket.sendall(data)
        except OSError:
            pass

    def receive(self, seconds: float | None = None) -> Any:
        """The next frame.

        Raises:
            Closed: the other end is gone.
            TimeoutError: no frame within `seconds`; the channel cannot be used any more.
        """
        until = None if seconds is None else clock_seconds() + seconds
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, until))
        return self._decoder.decode(self._read(length, until))

    def _read(self, size: int, until: float | None) -> bytearray:
        data = bytearray(min(size, AT_FIRST))
        done = 0
        while done < size:
            if done == len(data):
                data.extend(bytes(min(done, size - done)))
            self._await_data(until)
            try:
                with memoryview(data) as view, view[done:] as rest:
                    count = self._socket.recv_into(rest)
            except OSError as error:
                raise Closed(str(error)) from None
            if not count:
                raise Closed("the other end is gone")
            done += count
        return data

    def _await_data(self, until: float | None) -> None:
        ready = dict(self._poll.poll(None if until is None else max(0.0, until - clock_seconds()) * 1000))
        if not ready:
            raise TimeoutError
        # Frames sent before the end of the process come first.
        if self._number not in ready:
            raise Closed("the other process has ended")

    def hang_up(self) -> None:
        """Nothing is sent or received any more, at either end. From any thread, unlike `close`."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # gone already

    def close(self) -> None:
        """Close this end; the other end finds out."""
        self._socket.close()


def raw(value: Any) -> msgspec.Raw:
    """The value of an `Answer`."""
    return msgspec.Raw(_encoder.encode(value))
