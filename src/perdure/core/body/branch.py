"""Branches: lines of sequential control flow inside a body, and the calls that they count.

A branch's name must be the same on replay, with other tasks spawned meanwhile, and for every order in which a set of
coroutines becomes tasks. So the name consists of the coroutine's qualified name, a hash of its arguments where they can
be encoded, and an occurrence number among siblings of the same name.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from msgspec import Struct

from ..ground.digest import blake2b
from ..ground.model import Kind
from ..ground.spec import Function
from .interfaces import BodyPort


class Call(Struct, eq=False):
    """One durable call: the identity of the call, and the place where the call was made; see `Branch.call`. A struct,
    because one is made for each recorded call."""

    body: BodyPort
    branch: Branch
    kind: Kind
    name: str
    fp: bytes
    occ: int
    seq: int
    label: str | None
    inputs: bytes | None
    function: Function | None
    """The traced function, or the task, that may have been recorded under another name; `None` for all other calls."""
    identity: bytes
    begun: int = 0
    """Set by `Body.begin`: the entry delivered last when the call was made."""

    def describe(self) -> str:
        """For people: what was asked for, and where."""
        from ..ground.values import preview

        shown = preview(self.inputs, 120) if self.inputs else ""
        what = f"{self.kind.name.lower()} {self.name}({shown})"
        if self.function is not None and self.kind is Kind.TRACE:
            code = self.function.fn.__code__
            module = self.function.qualified().partition(":")[0]
            what += f" of module {module} ({code.co_filename}:{code.co_firstlineno})"
        return f"{what} [call {self.seq} of {self.branch.describe()}]"


class Branch:
    """See the module text. Counters only; used by one task or thread at a time."""

    __slots__ = ("body", "floor", "forks", "id", "label", "occurrences", "parent", "seq", "timers", "title")

    def __init__(self, body: BodyPort, id: int, title: str, *, parent: Branch | None, floor: int) -> None:
        self.body = body
        self.id = id
        self.title = title
        self.parent = parent
        self.seq = 0
        self.occurrences: dict[bytes, int] = {}
        self.forks: dict[bytes, int] = {}
        self.floor = floor
        """The latest time read on this line, microseconds; `durable_time` never gives less (P8)."""
        self.label: str | None = parent.label if parent is not None else None
        self.timers = 0
        """How many plain timers have been armed on this line."""

    def call(
        self,
        kind: Kind,
        name: str,
        fp: bytes,
        inputs: bytes | None = None,
        function: Function | None = None,
        identity: bytes = b"",
    ) -> Call:
        """The next durable call on this branch: identity and position are taken now."""
        occurrences = self.occurrences
        occ = occurrences.get(fp, 0)
        occurrences[fp] = occ + 1
        seq = self.seq
        self.seq = seq + 1
        return Call(self.body, self, kind, name, fp, occ, seq, self.label, inputs, function, identity)

    def fork(self, title: str, args: bytes | None = None) -> Branch:
        """A child branch for a new task or thread."""
        key = _key(title, args)
        return self._fork(title, key, self._reserve(key))

    def reserve(self, title: str) -> int:
        """The occurrence number of a child branch that may be made later (`fork_at`)."""
        return self._reserve(_key(title, None))

    def fork_at(self, title: str, occurrence: int) -> Branch:
        """The child branch of a reserved number."""
        return self._fork(title, _key(title, None), occurrence)

    def _reserve(self, key: bytes) -> int:
        occurrence = self.forks.get(key, 0)
        self.forks[key] = occurrence + 1
        return occurrence

    def _fork(self, title: str, key: bytes, occurrence: int) -> Branch:
        digest = blake2b(b"%d\0%d\0%b" % (self.id, occurrence, key), digest_size=8).digest()
        return Branch(self.body, int.from_bytes(digest, "big", signed=True), title, parent=self, floor=self.floor)

    def describe(self) -> str:
        """The path for people, such as `main > helper`."""
        titles: list[str] = []
        branch: Branch | None = self
        while branch is not None:
            titles.append(branch.title)
            branch = branch.parent
        return " > ".join(reversed(titles))


def _key(title: str, args: bytes | None) -> bytes:
    name = title.encode("utf-8", "surrogatepass")
    return name if args is None else name + b"\0" + blake2b(args, digest_size=16).digest()


def path_below(path: bytes, branch: int, fp: bytes, occ: int) -> bytes:
    """The path of a call in the body of that path: 16 bytes over all calls that lead to the call from the root task,
    whose body has the empty path. The path is the same in every life of a run, and is known before any row is written.
    """
    return blake2b(b"%d\0%d\0%b%b" % (branch, occ, fp, path), digest_size=16).digest()


def fork_for_coroutine(parent: Branch, coro: Any) -> Branch:
    """The branch of a task that is about to run `coro`."""
    name, arguments = _of_coroutine(coro)
    return parent.fork(name, None if arguments is None else name_arguments(arguments))


def _of_coroutine(coro: Any) -> tuple[str, dict[str, Any] | None]:
    """The name of a coroutine and, as long as it has not started, its arguments."""
    name = getattr(coro, "__qualname__", None) or type(coro).__qualname__
    frame = getattr(coro, "cr_frame", None)
    # Only an unstarted coroutine still shows its arguments, and nothing but them and the variables of its closure.
    if frame is None or coro.cr_suspended or coro.cr_running:
        return name, None
    closure = getattr(getattr(coro, "cr_code", None), "co_freevars", ())
    # A variable of a closure may hold a clock's reading or a list that grows, which are no part of a name.
    # `f_locals` is a proxy and no dict from Python 3.13 on.
    return name, {
        key: value for key, value in frame.f_locals.items() if key not in closure or type(value) in CLOSURE_TYPES
    }


CLOSURE_TYPES = frozenset({str, int, bool, bytes, type(None)})
"""Variables of a closure that count for a branch's name are of these types."""


def fork_for_function(parent: Branch, func: Any) -> Branch:
    """The branch of a thread that is about to run `func`, seen through `functools.partial` and `Context.run`."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    while isinstance(func, partial):
        args, kwargs, func = func.args + args, {**func.keywords, **kwargs}, func.func
    if getattr(func, "__name__", "") == "run" and args and type(getattr(func, "__self__", None)).__name__ == "Context":
        func, args = args[0], args[1:]
        while isinstance(func, partial):
            args, kwargs, func = func.args + args, {**func.keywords, **kwargs}, func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return parent.fork(name, name_arguments({str(place): arg for place, arg in enumerate(args)} | kwargs))


def name_arguments(arguments: dict[str, Any]) -> bytes | None:
    """Canonical bytes for arguments, to tell branches of one function apart; `None` for no arguments.

    An argument that cannot be encoded counts by what is known of it on every replay: a coroutine by its function and
    arguments, a task by its branch, anything else by its type.
    """
    if not arguments:
        return None
    encoded = _canonical(arguments)
    if encoded is not None:
        return encoded
    return _canonical({name: _stand_in(value, DEPTH) for name, value in arguments.items()})


DEPTH = 4
"""How many coroutines within coroutines are looked into for a name."""


def _stand_in(value: Any, depth: int) -> Any:
    if _canonical(value) is not None:
        return value
    branch = getattr(value, "branch", None)
    if isinstance(branch, Branch):
        return ["branch", branch.id]
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "cr_frame") and depth:
        name, arguments = _of_coroutine(value)
        inner = {key: _stand_in(one, depth - 1) for key, one in (arguments or {}).items()}
        return [kind, name, inner]
    return [kind]


def _canonical(value: Any) -> bytes | None:
    from ...errors import PerdureError
    from ..ground.values import ANY

    try:
        return ANY.canonical(value)
    except (PerdureError, RecursionError):
        return None
