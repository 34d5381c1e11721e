"""Bodies of tasks with `executor="ray"`: each attempt is a Ray task, in a process connected to the driving process.

The Ray task (`_ray_node`) starts the same program as the pool of child processes does (`perdure.api.child`), in a
process of its own beside Ray's worker, connected over TCP. `core.run.remote_body` states the invariants of both ends.
Ray adds:

- N1 only the process that drives the run writes. At its death the connections break, and the processes of its bodies
  end; a process on a node that is cut off may go on for some seconds, and reaches no store.
- N2 Ray never retries. A body whose process ends has failed (`BodyDiedError`). A lost node, Ray worker or connection
  loses the attempt (`AttemptLost`), and the next attempt costs no retry.
- N3 a process that connects has to send first a token that only the Ray task was given (`Listener`). Connections
  without the token are bounded in number, in time and in bytes. A frame from a node names only code below the code
  root, or code that the driving process has loaded already (`RayPool.refuse_call`).
- N4 the code's root is shipped as Ray's `working_dir`. Files are called by their paths in the driving process, and
  found below the node's copy (`_inner.store.PathMap`). Code that differs from the driving process's code is not
  executed.
- N5 without a cluster no attempt fails: the run stays interrupted, and can be continued.

A body can become unwanted at any point. Before its process has connected, the waiting thread notices
(`RayBody._await_process`) and has Ray cancel the task, queued or not; the listener hangs up on a process that connects
afterwards (N3). From the connection on, `RayBody.kill` hangs up, so that the process ends, and has Ray kill the worker,
so that the kernel kills a process that does not look.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
import selectors
import socket
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, wait
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec

from ..core.ground.clock import seconds
from ..core.ground.spec import TaskSpec
from ..core.journal.source import code_root
from ..errors import ClusterUnavailableError, PerdureError, UsageError
from . import _frames as frames
from . import _ray_node
from ._places import Find, Places
from ._ray_node import what_runs
from ._session import BodySession
from .process import hello

log = logging.getLogger("perdure")

WIDTH: Final = 512
"""Bodies with Ray at once: at work, or waiting there for resources."""
LOOK: Final = 0.25
"""Seconds between two looks of a waiting thread whether the body is still wanted."""
ANSWERING: Final = 5.0
"""Seconds for the server at the cluster's address to answer."""
CONNECTING: Final = 60.0
"""Seconds for the connection to a cluster, which may have to be started."""
CALLING: Final = 10.0
"""Seconds for a connected process to send the token and the greeting."""
STRANGERS: Final = 128
"""Connections without authentication that are open at once."""
TOKEN: Final = 64
"""Bytes of a token: 256 random bits in hexadecimal digits."""
GREETING: Final = 4096
"""Bytes of the longest greeting, without the token."""
ENDING: Final = 30.0
"""Seconds for Ray to tell the end of a task whose connection is gone."""
LEAVING: Final = 5.0
"""Seconds for a process to end after its body has ended."""
LACKING: Final = 2.0
"""Seconds before a warning that no node has the resources of a body."""
LONG: Final = 30.0
"""Seconds before a warning that a body waits for a place."""
_LOADS_CODE: Final = re.compile(r"(LD_|DYLD_|PYTHON|GCONV_PATH)")
"""Environment variables with which the dynamic loader or the interpreter loads other code."""
EXCLUDES: Final = (
    ".perdure", ".git", ".venv", "venv", "node_modules", "**/__pycache__", ".mypy_cache", ".pytest_cache",
    ".ruff_cache",
)  # fmt: skip


class RayPool(Places):
    """See the module text."""

    def __init__(self, *, store_id: str, store_url: str, blobs: str, find: Find, address: str | None) -> None:
        super().__init__(WIDTH, find)
        self.address = address
        self.hello = hello(store_id, store_url, blobs)

    def refuse_call(self, caller: TaskSpec, call: frames.Delegate) -> None:
        """See `Places`. A node may be in the hands of an attacker, so the node's word is not enough for an import."""
        file = call.target.partition("::")[0]
        if not (_is_loaded(file, call.module) or _is_below(file, call.module, code_root(_file_of(caller)))):
            raise UsageError(
                f"task {call.name} was called on a Ray node, and its code, {file}, is not below the code root of "
                f"{caller.name} ({code_root(_file_of(caller))}): import that file in the program that starts the run"
            )
        names = [] if call.executor == "ray" else [name for name in call.env_vars if _LOADS_CODE.match(name)]
        if names:
            raise UsageError(
                f"task {call.name} was called on a Ray node with env_vars that decide which code a process loads "
                f"({', '.join(sorted(names))}): set them for the program that starts the run"
            )

    def give(self, session: BodySession) -> None:
        """See `Places`."""
        threading.Thread(target=self._serve, args=(session,), name="perdure-ray-body", daemon=True).start()

    def _serve(self, session: BodySession) -> None:
        name = session.spec.name
        try:
            RayBody(self, session).main()
        except ClusterUnavailableError as error:
            session.suspend(error)
        except PerdureError as error:
            session.failed(error)
        except Exception as error:
            log.debug("the conversation with a process on a Ray node broke off", exc_info=True)
            session.failed(PerdureError(f"the body of {name} could not be executed on Ray: {one_line(error)}"))


def _file_of(spec: TaskSpec) -> str:
    return spec.target().partition("::")[0]


def _is_loaded(file: str, module: str) -> bool:
    """Whether this process has imported the file under the name, so that nothing is left to import."""
    found = (sys.modules.get(name) for name in (module, "__main__"))
    return any(os.path.abspath(getattr(each, "__file__", None) or "/") == file for each in found)


def _is_below(file: str, module: str, root: str) -> bool:
    """Whether the file lies below the directory, links resolved, and an import by that name starts below it, too.

    An import of a dotted name executes the packages in front, so they have to be the directories above the file.
    """
    real, top = os.path.realpath(file), os.path.realpath(root)
    if not os.path.isabs(file) or not real.endswith(".py") or os.path.commonpath([real, top]) != top:
        return False
    path = os.path.splitext(os.path.relpath(real, top))[0].removesuffix(f"{os.sep}__init__")
    return "." not in module or f".{path}".replace(os.sep, ".").endswith(f".{module}")


# -- the cluster -------------------------------------------------------------------------------------------------------


class Connected(NamedTuple):
    """The results of connecting to a cluster."""

    task: Any
    listener: Listener
    root: str | None
    """The directory that was shipped; `None` where the program has connected to Ray by itself."""


class RayCluster:
    """This process's connection to a cluster. Ray has one connection per process, for all stores."""

    def __init__(self, address: str | None, root: str) -> None:
        self.connected: Future[Connected] = Future()
        self._address = address
        self._root = root
        threading.Thread(target=self._main, name="perdure-ray", daemon=True).start()

    def _main(self) -> None:
        try:
            self.connected.set_result(self._connect())
        except BaseException as error:
            self.connected.set_exception(error)
            return
        # For the life of the process: Linux kills a cluster that Ray has started here when the *thread* that started
        # the cluster ends (PR_SET_PDEATHSIG).
        threading.Event().wait()

    def _connect(self) -> Connected:
        if self._address in (None, "local"):
            # The user has not asked for usage reports to Ray's makers.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        root = None
        if not ray.is_initialized():
            address, root = self._address, self._root
            if address not in (None, "auto", "local"):
                refuse_silent(address)
            try:
                ray.init(
                    address=address, runtime_env={"working_dir": root, "excludes": list(EXCLUDES)},
                    logging_level=logging.ERROR, include_dashboard=False,
                )  # fmt: skip
            except Exception as error:
                said = " ".join(str(error).split())[:500]
                raise ClusterUnavailableError(f"no connection to Ray at {address or 'this machine'}: {said}") from error
        # Without a requirement for perdure: the task itself reports a missing perdure.
        ray.cloudpickle.register_pickle_by_value(_ray_node)  # type: ignore[no-untyped-call]
        task = ray.remote(max_retries=0)(_ray_node.on_node)
        return Connected(task, Listener(str(ray.util.get_node_ip_address())), root)  # type: ignore[no-untyped-call]

    def is_over(self) -> bool:
        """Whether the connection failed, or the program has disconnected Ray."""
        if not self.connected.done():
            return False
        import ray

        return self.connected.exception() is not None or not ray.is_initialized()

    def refuse(self, address: str | None, root: str, name: str) -> None:
        """Raise `UsageError` for a body of another cluster, or of other code."""
        if self.connected.done() and self.connected.result().root is None:
            return
        if address != self._address:
            raise UsageError(
                f"this process is connected to Ray at {self._address or 'this machine'}, not {address or 'here'}: "
                "call ray.shutdown() before perdure.init(ray_address=...)"
            )
        if root != self._root:
            raise UsageError(
                f"the code of {name} lies in {root}, but {self._root} was given to Ray's nodes: call "
                "ray.init(runtime_env={'working_dir': ...}) with a directory that holds both before the run starts"
            )


_lock = threading.Lock()
_cluster: RayCluster | None = None


def cluster(address: str | None, root: str, name: str) -> RayCluster:
    """The connection of this process, made on first use.

    Raises:
        UsageError: the process is connected to another cluster, or has shipped other code.
    """
    global _cluster
    with _lock:
        if _cluster is None or _cluster.is_over():
            _cluster = RayCluster(address, root)
        _cluster.refuse(address, root, name)
        return _cluster


def refuse_silent(address: str) -> None:
    """Raise where no cluster answers: Ray itself would try for a quarter of an hour.

    Raises:
        ClusterUnavailableError: no server answers there, or a server of another kind than gRPC.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWERING) as connection:
            # The preface of an HTTP/2 client, and an empty SETTINGS frame, the first frame of a server, too.
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            answer = connection.recv(9)
    except OSError as error:
        raise ClusterUnavailableError(f"no Ray cluster answers at {address}: {error}") from None
    if answer[3:4] != b"\x04":
        raise ClusterUnavailableError(f"what answers at {address} is no Ray cluster")


class Greeting(msgspec.Struct):
    """The line from a node after the token."""

    runs: str
    digest: str
    """The digest of the body's file; empty if the file is missing."""


class Stranger:
    """A connection whose token is not proved yet, with the bytes so far."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until
        self.data = b""


class Listener:
    """The TCP server for processes on Ray's nodes. One thread handles all connections until each is authenticated.

    N3: a connection sends the token first. The token has a fixed length, is compared in constant time, and nothing is
    parsed before. At most `STRANGERS` connections are open without authentication, each for at most `CALLING` seconds.
    A further connection closes the oldest: a node sends the token at once, so the oldest is the least likely node.
    """

    def __init__(self, ip: str) -> None:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self._socket = socket.create_server((ip, 0), family=family, backlog=512)
        self._socket.setblocking(False)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._lock = threading.Lock()
        self._expected: dict[str, Future[tuple[socket.socket, Greeting]]] = {}
        self._strangers: dict[int, Stranger] = {}
        """By descriptor, the oldest first."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        threading.Thread(target=self._main, name="perdure-ray-listener", daemon=True).start()

    def expect(self, token: str) -> Future[tuple[socket.socket, Greeting]]:
        """The future connection of the process with that token."""
        future: Future[tuple[socket.socket, Greeting]] = Future()
        with self._lock:
            self._expected[token] = future
        return future

    def forget(self, token: str) -> None:
        """Expect the process no longer."""
        with self._lock:
            future = self._expected.pop(token, None)
        if future is not None:
            future.cancel()

    def _main(self) -> None:
        while True:
            oldest = next(iter(self._strangers.values()), None)
            ready = self._selector.select(None if oldest is None else max(0.0, oldest.until - seconds()))
            # Tokens before new connections: no node whose token has arrived is closed for a newcomer.
            for key, _ in ready:
                stranger = self._strangers.get(key.fd)
                if stranger is not None:
                    self._read(stranger)
            if any(key.fileobj is self._socket for key, _ in ready):
                self._accept()
            for stranger in [each for each in self._strangers.values() if each.until <= seconds()]:
                self._close(stranger)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return  # the other end has gone already
        except OSError as error:
            log.warning("a process on a Ray node could not be let in: %s", error)
            for stranger in list(self._strangers.values()):
                self._close(stranger)  # too many open files, say
            threading.Event().wait(LOOK)
            return
        if len(self._strangers) >= STRANGERS:
            self._close(next(iter(self._strangers.values())))
        sock.setblocking(False)
        stranger = self._strangers[sock.fileno()] = Stranger(sock, seconds() + CALLING)
        self._selector.register(sock, selectors.EVENT_READ)
        self._read(stranger)

    def _read(self, stranger: Stranger) -> None:
        try:
            data = stranger.sock.recv(TOKEN + GREETING - len(stranger.data))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        stranger.data += data
        token = stranger.data[:TOKEN]
        if not data or (len(token) == TOKEN and self._known(token) is None):
            self._close(stranger)
        elif stranger.data.find(b"\n", TOKEN) >= 0:
            self._let_in(stranger)
        elif len(stranger.data) >= TOKEN + GREETING:
            self._close(stranger)

    def _known(self, token: bytes) -> str | None:
        with self._lock:
            # Every expected token is compared: the time tells neither how much of a token is right, nor of which.
            same = [each for each in self._expected if hmac.compare_digest(each.encode(), token)]
        return same[0] if same else None

    def _let_in(self, stranger: Stranger) -> None:
        token, line = stranger.data[:TOKEN], stranger.data[TOKEN:]
        try:
            # A line with bytes behind is refused, too: a node waits for the answer before the first frame.
            greeting = msgspec.json.decode(line, type=Greeting)
            self._selector.unregister(stranger.sock)
            stranger.sock.setblocking(True)
            keep_alive(stranger.sock)
        except (OSError, ValueError):
            self._close(stranger)
            return
        del self._strangers[stranger.sock.fileno()]
        known = self._known(token)
        with self._lock:
            future = None if known is None else self._expected.pop(known, None)
        if future is None:
            stranger.sock.close()  # too late
        else:
            future.set_result((stranger.sock, greeting))

    def _close(self, stranger: Stranger) -> None:
        number = stranger.sock.fileno()
        del self._strangers[number]
        if number in self._selector.get_map():
            self._selector.unregister(stranger.sock)
        stranger.sock.close()


def keep_alive(sock: socket.socket) -> None:
    """Notice within half a minute that the machine at the other end is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


# -- one body ----------------------------------------------------------------------------------------------------------


class RayBody:
    """One body with Ray, and the thread that talks to the process of the body."""

    channel: frames.Channel

    def __init__(self, pool: RayPool, session: BodySession) -> None:
        self._pool = pool
        self._session = session
        self._file = session.spec.target().partition("::")[0]
        self._root = code_root(self._file)
        self._killed = threading.Event()

    def main(self) -> None:
        """Work until the body has ended.

        Raises:
            ClusterUnavailableError: there is no cluster.
            UsageError: this process has another cluster, or the node has other versions.
        """
        found = self._await_cluster()
        if found is None:
            return
        arrived = self._await_process(found)
        if arrived is None:
            return
        sock, greeting = arrived
        self.channel = frames.Channel(sock, frames.ToParent)
        try:
            self._refuse(greeting, found)
            self.channel.send(self._pool.hello)
            self._converse()
        finally:
            self.channel.close()

    def _await_cluster(self) -> Connected | None:
        found = cluster(self._pool.address, self._root, self._session.spec.name)
        until = seconds() + CONNECTING
        while not self._session.over:
            if wait([found.connected], LOOK).done:
                return found.connected.result()
            if seconds() > until:
                at = self._pool.address or "this machine"
                raise ClusterUnavailableError(f"there was no connection to Ray at {at} within {CONNECTING:.0f} s")
        return None

    def _await_process(self, found: Connected) -> tuple[socket.socket, Greeting] | None:
        token = secrets.token_hex(TOKEN // 2)
        connected = found.listener.expect(token)
        try:
            self._begin(found, token)
            mentions = [(LACKING, self._mention_lack), (LONG, self._mention)]
            begun = seconds()
            either: list[Future[Any]] = [connected, self._ended]
            while not any(future.done() for future in either):
                wait(either, LOOK, FIRST_COMPLETED)
                if self._session.over:
                    self.kill()
                    return None
                if mentions and seconds() - begun > mentions[0][0]:
                    mentions.pop(0)[1]()
        finally:
            found.listener.forget(token)
        if connected.cancelled():
            self._tell_end()
            return None
        return connected.result()

    def _begin(self, found: Connected, token: str) -> None:
        spec = self._session.spec
        options: dict[str, Any] = {"name": f"{spec.name} ({self._session.body.driver.run.name})"}
        needs = self._needs()
        for name, option in (("CPU", "num_cpus"), ("memory", "memory"), ("GPU", "num_gpus")):
            if name in needs:
                options[option] = needs[name]
        self._ref = found.task.options(**options).remote(
            found.listener.address, what_runs(), token, self._root, os.path.relpath(self._file, self._root),
            spec.env_vars,
        )  # fmt: skip
        self._ended: Future[int] = self._ref.future()

    def _needs(self) -> dict[str, float]:
        """The resources by Ray's names."""
        needs: frames.Needs = self._session.spec.resources or frames.Needs()
        found = {"CPU": 1 if needs.cpu is None else needs.cpu, "memory": needs.memory, "GPU": needs.gpu}
        return {name: value for name, value in found.items() if value}

    def _mention_lack(self) -> None:
        import ray

        needs = self._needs()
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        except Exception:
            return  # the cluster does not answer just now; the body goes on waiting
        if not any(all(node.get(name, 0) >= value for name, value in needs.items()) for node in nodes):
            log.warning("%s waits: no node of the Ray cluster has %s", self._session.spec.name, in_words(needs))

    def _mention(self) -> None:
        log.warning("%s waits for Ray to find it a place with %s", self._session.spec.name, in_words(self._needs()))

    def _refuse(self, greeting: Greeting, found: Connected) -> None:
        if greeting.runs != what_runs():
            raise UsageError(f"Ray's node runs {greeting.runs}, this process {what_runs()}: install the same on both")
        advice = "leave the connection to perdure (init(ray_address=...)), which ships it, or ship it yourself: "
        advice += "ray.init(runtime_env={'working_dir': ...})"
        if not greeting.digest:
            raise UsageError(f"{self._file} is not on Ray's node: {advice}")
        # This process has loaded the files as they were shipped first, even if a file was edited since.
        if found.root is None and greeting.digest != _digest(self._file):
            raise UsageError(f"{self._file} is another one on Ray's node: {advice}")

    def _converse(self) -> None:
        session = self._session
        try:
            if not session.assigned(self):
                self.kill()
                return
            while not session.handle(self.channel.receive(session.seconds_left())):
                pass
        except TimeoutError:
            session.timed_out()
            return
        except frames.Closed:
            if not self._killed.is_set():
                self._tell_end()
            return
        except BaseException as error:
            log.exception("what a process on a Ray node has sent could not be handled")
            self.kill()
            session.failed(PerdureError(f"a process on a Ray node could not be understood: {error}"))
            return
        # Hanging up ends the process, unless the body has left work behind that holds on to the process.
        self.channel.hang_up()
        if not wait([self._ended], LEAVING).done:
            self.kill()

    def _tell_end(self) -> None:
        """The process has ended before the body, or the connection is gone: Ray knows more."""
        from ray import exceptions

        name, session = self._session.spec.name, self._session
        if not wait([self._ended], ENDING).done:
            self.kill()
            session.lost("its connection is gone, and Ray does not know why")
            return
        error = self._ended.exception()
        if error is None:
            code = self._ended.result()
            if code == frames.HUNG_UP:
                session.lost("the connection to its process broke")
            else:
                session.died(code)
        elif isinstance(error, exceptions.OutOfMemoryError):
            session.died(-9)
        elif isinstance(error, (exceptions.RayTaskError, exceptions.RuntimeEnvSetupError)):
            session.failed(PerdureError(f"the body of {name} could not be started on its node: {one_line(error)}"))
        else:
            session.lost(f"Ray has lost it, {type(error).__name__}: {one_line(error)}")

    def kill(self) -> None:
        """End the process of the body, on every node; from any thread."""
        import ray

        if self._killed.is_set():
            return
        self._killed.set()
        try:
            ray.cancel(self._ref, force=True)
        except Exception:
            # Without a connection to the cluster the process has lost its Ray worker.
            log.debug("a Ray task could not be cancelled", exc_info=True)
        if hasattr(self, "channel"):
            self.channel.hang_up()

    def keep(self) -> None:
        """Let Ray use its own processes again."""


def in_words(needs: dict[str, float]) -> str:
    """Such as `2 cores, 4 GiB of memory`."""
    words = {"CPU": "cores", "GPU": "GPUs"}
    return ", ".join(
        f"{value / 2**30:g} GiB of memory" if name == "memory" else f"{value:g} {words[name]}"
        for name, value in needs.items()
    )


def one_line(error: BaseException) -> str:
    """The last line of Ray's long messages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _digest(file: str) -> str:
    with open(file, "rb") as stream:
        return blake2b(stream.read()).hexdigest()
