"""Exceptions as bytes, and back.

The bytes hold the name of the class, the arguments, storable attributes, notes, causes and contexts, and the members of
a group. An exception is rebuilt without `__init__`, because the parameters of `__init__` are seldom the arguments, and
only from a class that is already imported: stored data imports no module and calls no function of the user's. Without
such a class the exception becomes a `RemoteError` with the same text.

An exception often appears twice in a tree (`raise ... from error` sets cause and context alike), and trees may have
cycles. So the bytes hold a list of exceptions that name each other by position; the first entry is the root.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

from msgspec.msgpack import Ext

from perdure.core.ground.values import _wire
from perdure.core.ground.values._names import find_class, logical_module
from perdure.core.ground.values._traceback import (
    cause_of,
    context_of,
    format_chain,
    format_one,
    members_of,
    suppresses,
    text_of,
    traceback_of,
)
from perdure.core.ground.values._validation import is_validation_error
from perdure.core.ground.values._validation import parts as validation_parts
from perdure.core.ground.values._validation import rebuilt as validation_error
from perdure.core.ground.values._wire import INLINE_LIMIT, Mode, NotStorable, TooLarge
from perdure.errors import RemoteError, ValueMismatchError

MAX_NOTES: Final = 100
MAX_ARGS: Final = 1000  # arguments of an exception, or errors of a validation, that are written one by one
MAX_DEPTH: Final = 10  # links of cause, context or membership that are followed
TRACEBACK_LIMIT: Final = 16 * 1024  # bytes of the traceback text of the exception itself; its end is kept
INNER_TRACEBACK_LIMIT: Final = 4 * 1024  # the same for linked exceptions
MESSAGE_LIMIT: Final = 64 * 1024  # bytes of the message, and of all notes together
PART_LIMIT: Final = 1024 * 1024  # bytes of one exception's arguments, or of one attribute
TOTAL_LIMIT: Final = INLINE_LIMIT // 2  # bytes of all parts; the parts nearest to the root are kept first
SCRAP: Final = 200  # bytes that a text keeps when the total is used up

# Attributes of every exception, written in another way or not at all.
_COMMON: Final = frozenset(vars(BaseException)) | {"exceptions", "message"}
_GROUP: Final = BaseExceptionGroup


def encode_error(exc: BaseException) -> bytes:
    """An exception with all linked exceptions, as bytes under the inline limit; never raises.

    Attributes that cannot be stored are left out, and arguments that cannot be stored become text. Tracebacks are plain
    text, without the values of local variables.
    """
    try:
        data = _wire.encode(_Writer(exc, MAX_DEPTH).nodes)
        if len(data) <= INLINE_LIMIT:
            return data
        return _wire.encode(_Writer(exc, depth=0).nodes)  # a group of ten thousands of members
    except BaseException as error:  # a class whose own attributes raise, or no stack left
        cls = type(exc)
        note = f"<recorded without its data: {type(error).__qualname__}>"
        return _wire.encode([{"module": "?", "name": cls.__qualname__, "message": note, "traceback": ""}])


class _Writer:
    """Writes a tree of exceptions, breadth first."""

    def __init__(self, exc: BaseException, depth: int) -> None:
        self.nodes: list[dict[str, object]] = []
        self.positions: dict[int, int] = {}
        self.budget = TOTAL_LIMIT
        self.pending = [(exc, depth)]
        self.positions[id(exc)] = 0
        done = 0
        while done < len(self.pending):
            self.nodes.append(self._node(*self.pending[done]))
            done += 1

    def _node(self, exc: BaseException, depth: int) -> dict[str, object]:
        root = not self.nodes
        cls = type(exc)
        node: dict[str, object] = {
            "module": logical_module(str(cls.__module__)),
            "name": cls.__qualname__,
            "message": self._text(text_of(exc), MESSAGE_LIMIT),
            **self._own_data(exc),
            "traceback": self._text(
                _traceback(exc, root), TRACEBACK_LIMIT if root else INNER_TRACEBACK_LIMIT, tail=True
            ),
        }
        notes = held_by(exc).get("__notes__")
        if isinstance(notes, list):
            kept = [note for note in notes if isinstance(note, str)]
            node["notes"] = [self._text(note, MESSAGE_LIMIT // len(kept)) for note in kept[:MAX_NOTES]]
        if issubclass(cls, _GROUP) and depth:
            node["text"] = self._text(_group_text(exc), MESSAGE_LIMIT)
            node["members"] = [self._position(member, depth - 1) for member in members_of(exc)]
        if depth:
            for link, linked in (("cause", cause_of(exc)), ("context", context_of(exc))):
                if linked is not None:
                    node[link] = self._position(linked, depth - 1)
        node["suppress"] = suppresses(exc)
        return node

    def _position(self, exc: BaseException, depth: int) -> int:
        position = self.positions.get(id(exc))
        if position is None:
            position = self.positions[id(exc)] = len(self.pending)
            self.pending.append((exc, depth))
        return position

    def _own_data(self, exc: BaseException) -> dict[str, object]:
        """Arguments and attributes."""
        own: dict[str, object] = {}
        if is_validation_error(type(exc)):
            own["validation"] = self._validation(exc)
        elif not issubclass(type(exc), _GROUP):
            own["args"] = self._args(BaseException.args.__get__(exc))  # type: ignore[attr-defined]
        attributes = {}
        held = {name: item for name, item in held_by(exc).items() if not name.startswith("__")}
        for name, item in {**held, **_slot_state(exc)}.items():
            wire = self._within_budget(item) if _wire.is_plain_text(name) else None
            if wire is not None or item is None:
                attributes[name] = wire
        own["attributes"] = attributes
        return own

    def _args(self, args: tuple[object, ...]) -> object:
        """The arguments; an argument that cannot be stored is replaced by text."""
        wire = self._within_budget(args)
        if wire is not None:
            return wire
        kept: list[object] = []
        for arg in args[:MAX_ARGS]:
            stored = self._within_budget(arg)
            if stored is None and arg is not None:
                # `str` of an exception is `str` of the only argument, or `repr` of several arguments.
                stored = self._text(_described(arg, str if len(args) == 1 else repr), MESSAGE_LIMIT // len(args))
            kept.append(stored)
        return Ext(_wire.TUPLE, _wire.encode(kept))

    def _validation(self, exc: BaseException) -> object:
        title, errors = validation_parts(exc)
        kept = []
        for error in errors[:MAX_ARGS]:
            wires = {key: self._within_budget(item) for key, item in error.items()}
            if wires["input"] is None and error["input"] is not None:
                wires["input"] = self._text(_described(error["input"], repr), SCRAP)
            kept.append(wires)
        return [title, kept]

    def _text(self, text: str, limit: int, tail: bool = False) -> str:
        """Text for display: lone surrogates escaped, at most `limit` bytes, less when the total is used up."""
        data = text.encode("utf-8", "backslashreplace")
        limit = max(min(limit, self.budget), SCRAP)
        if len(data) > limit:
            data = "…".encode() + data[3 - limit :] if tail else data[: limit - 3] + "…".encode()
        self.budget -= len(data)
        return data.decode("utf-8", "ignore")

    def _within_budget(self, value: object) -> object:
        room = min(PART_LIMIT, self.budget)
        try:
            wire = _wire.dump_any(value, Mode(room=room))
            size = len(_wire.encode(wire))
        except (NotStorable, RecursionError, TooLarge):
            return None
        except Exception:  # a half-built value of a foreign class
            return None
        if size > room:
            return None  # kept whole or not at all
        self.budget -= size
        return wire


def held_by(exc: BaseException) -> dict[str, Any]:
    """The attributes in the exception's `__dict__`; nothing where the class refuses the access."""
    try:
        held = exc.__dict__
    except BaseException:  # code of the user's
        return {}
    return {name: item for name, item in held.items() if isinstance(name, str)} if isinstance(held, dict) else {}


def _described(value: object, describe: Callable[[object], str]) -> str:
    try:
        return str.__str__(describe(value))
    except BaseException as error:  # code of the user's
        return f"<{type(value).__qualname__} whose {describe.__name__}() raises {type(error).__qualname__}>"


def _traceback(exc: BaseException, root: bool) -> str:
    """The formatted traceback, for the root behind the tracebacks of causes and contexts."""
    found = traceback_of(exc)
    if found is None and type(exc) is RemoteError:
        return str(exc.traceback_text)
    if not root and found is None:
        return ""
    try:
        return format_chain(exc) if root else format_one(exc)
    except BaseException as error:  # a class that answers in its own way, or no stack left
        return f"<traceback cannot be formatted: {type(error).__qualname__}>\n"


def _slots(cls: type) -> dict[str, Any]:
    """Attributes outside of `__dict__`: of built-in exceptions, such as `errno` of `OSError`, and of `__slots__`."""
    slots: dict[str, Any] = {}
    for base in cls.__mro__:
        kinds = (MemberDescriptorType, GetSetDescriptorType) if _is_builtin(base) else MemberDescriptorType
        if base is not object:
            for name, held in vars(base).items():
                if isinstance(held, kinds) and name not in _COMMON:
                    slots.setdefault(name, held)
    return slots


def _slot_state(exc: BaseException) -> dict[str, object]:
    state = {}
    for name, slot in _slots(type(exc)).items():
        try:
            value = slot.__get__(exc)
        except AttributeError:  # never set
            continue
        if value is not None:  # never set either: `OSError` shows a file name that was set to `None`
            state[name] = value
    return state


def decode_error(data: bytes) -> BaseException:
    """The exception from `encode_error`, as the original class if the class is imported, else as `RemoteError`.

    Raises:
        ValueMismatchError: the bytes are corrupt.
    """
    try:
        nodes = _decoded(data)
        return _Reader(nodes).read()
    except Exception as error:  # corrupt bytes fail in many ways
        raise ValueMismatchError(f"a recorded exception cannot be read: {type(error).__name__}: {error}") from error


def tame(exc: BaseException) -> BaseException:
    """The exception, or a substitute if the exception cannot be handled as a failure.

    `isinstance` reads `__class__`, messages read `__str__`, and walks along a chain read `__cause__`. Each attribute
    may be code of the user's that raises or lies: such an exception becomes a `RemoteError`. A `GeneratorExit` raised
    by hand becomes a `RuntimeError`, because Python takes a `GeneratorExit` for the closing of a coroutine.
    """
    if issubclass(type(exc), GeneratorExit):
        reserved = "GeneratorExit, which Python reserves for closing generators and coroutines; raise another exception"
        return RuntimeError(f"the code raised {reserved}").with_traceback(traceback_of(exc))
    try:
        if (
            exc.__class__ is type(exc)
            and exc.__dict__ is not None
            and _has_text(exc)
            and exc.__cause__ is cause_of(exc)
            and exc.__context__ is context_of(exc)
            and exc.__traceback__ is traceback_of(exc)
            and exc.__suppress_context__ is suppresses(exc)
            and (not issubclass(type(exc), _GROUP) or exc.exceptions is members_of(exc))  # type: ignore[attr-defined]
        ):
            return exc
    except BaseException:  # code of the user's
        pass
    return RemoteError(*describe_error(encode_error(exc)))


def _has_text(exc: BaseException) -> bool:
    try:
        str(exc)
    except Exception:  # logging and Python's own tracebacks cope with this
        pass
    return True


def describe_error(data: bytes) -> tuple[str, str, str]:
    """Type name, message and traceback text of an encoded exception, for display; nothing is rebuilt.

    Raises:
        ValueMismatchError: the bytes are corrupt.
    """
    try:
        node = _decoded(data)[0]
        if (_text(node, "module"), _text(node, "name")) == (RemoteError.__module__, RemoteError.__qualname__):
            own = node.get("attributes", {})  # the original's name and message say more
            return _text(own, "type_name"), _text(own, "message"), _text(node, "traceback")
        return _type_name(node), _text(node, "message"), _text(node, "traceback")
    except Exception as error:  # as above
        raise ValueMismatchError(f"a recorded exception cannot be read: {type(error).__name__}: {error}") from error


def _decoded(data: bytes) -> list[dict[str, Any]]:
    nodes = _wire.decode_any(data)
    if not (isinstance(nodes, list) and nodes and all(isinstance(node, dict) for node in nodes)):
        raise ValueError("it is no list of exceptions")
    return nodes


def _text(node: dict[str, Any], key: str) -> str:
    text = node.get(key, "")
    if not isinstance(text, str):
        raise ValueError(f"{key} is no text")
    return text


def _type_name(node: dict[str, Any]) -> str:
    module, name = _text(node, "module"), _text(node, "name")
    return name if module == "builtins" else f"{module}.{name}"


class _Reader:
    """Rebuilds the exceptions, members before the group, and links causes and contexts afterwards."""

    def __init__(self, nodes: list[dict[str, Any]]) -> None:
        self.nodes = nodes
        self.built: dict[int, BaseException] = {}
        self.open: set[int] = set()

    def read(self) -> BaseException:
        for position in range(len(self.nodes)):
            self._at(position)
        for position, exc in self.built.items():
            node = self.nodes[position]
            for link, slot in (("cause", _set_cause), ("context", _set_context)):
                if node.get(link) is not None:
                    slot(exc, self.built[node[link]])
            _set_suppress(exc, node.get("suppress") is True)
        return self.built[0]

    def _at(self, position: int) -> BaseException:
        if position not in self.built:
            if position in self.open or not 0 <= position < len(self.nodes):
                raise ValueError("an exception group contains itself, or nothing")
            self.open.add(position)
            self.built[position] = self._rebuilt(self.nodes[position])
        return self.built[position]

    def _rebuilt(self, node: dict[str, Any]) -> BaseException:
        exc = self._own(node)
        if exc is None:
            exc = RemoteError(_type_name(node), _text(node, "message"), _text(node, "traceback"))
        notes = node.get("notes")
        if isinstance(notes, list):
            exc.__dict__["__notes__"] = [note for note in notes if isinstance(note, str)]
        return exc

    def _own(self, node: dict[str, Any]) -> BaseException | None:
        cls: Any = find_class(_text(node, "module"), _text(node, "name"))
        attributes = node.get("attributes")
        if cls is None or BaseException not in cls.__mro__ or not isinstance(attributes, dict):
            return None
        try:
            new = _builtin_new(cls)
            if is_validation_error(cls):
                exc = validation_error(cls, *node["validation"])
            elif _GROUP in cls.__mro__:
                exc = new(cls, _text(node, "text"), [self._at(member) for member in node["members"]])
            else:
                exc = new(cls)
                _set_args(exc, node["args"])
            slots = _slots(cls)
            own = {name: item for name, item in attributes.items() if name not in slots}
            if own:
                exc.__dict__.update(own)
            for name, item in attributes.items():
                if name in slots:
                    _set_slot(slots[name], exc, item)
        except Exception:  # the class does not allow this; the caller makes a `RemoteError`
            return None
        # A `BaseExceptionGroup` of members of `Exception` alone becomes an `ExceptionGroup`.
        return exc if type(exc) in (cls, ExceptionGroup) else None


def _builtin_new(cls: type) -> Any:
    """The `__new__` of the built-in base: makes a bare instance without running code of the class."""
    return next(base.__new__ for base in cls.__mro__ if _is_builtin(base))


def _is_builtin(cls: type) -> bool:
    return vars(builtins).get(cls.__name__) is cls


def _set_slot(slot: Any, exc: BaseException, value: object) -> None:
    try:
        slot.__set__(exc, value)
    except AttributeError:  # read-only: derived from other attributes
        return


_group_text = BaseExceptionGroup.__dict__["message"].__get__
_set_args = BaseException.__dict__["args"].__set__
_set_cause = BaseException.__dict__["__cause__"].__set__
_set_context = BaseException.__dict__["__context__"].__set__
_set_suppress = BaseException.__dict__["__suppress_context__"].__set__
