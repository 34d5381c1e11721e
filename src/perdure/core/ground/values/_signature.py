"""The parameters of functions: bound arguments as bytes, for identity and as recorded inputs."""

from __future__ import annotations

import collections.abc as abc
import contextlib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from inspect import Parameter
from typing import Any

import msgspec

from perdure.core.ground.values import _wire
from perdure.core.ground.values._codec import ANY, Codec, codec_for, too_large
from perdure.core.ground.values._coerce import Coercion
from perdure.core.ground.values._compile import UnresolvedNameError
from perdure.core.ground.values._preview import preview_inputs
from perdure.core.ground.values._wire import IDENTITY_LIMIT, INLINE_LIMIT
from perdure.errors import UnsupportedTypeError, UsageError, ValueMismatchError, ValueTooLargeError

_encode = _wire.encode
_decode_inputs: Callable[[bytes], dict[str, msgspec.Raw]] = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_decode_raws: Callable[[msgspec.Raw], list[msgspec.Raw]] = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_SCALARS = _wire.SCALARS
_ITERABLES = frozenset({
    abc.Iterable, abc.Iterator, abc.Generator, abc.AsyncIterable, abc.AsyncIterator, abc.AsyncGenerator,
})  # fmt: skip
_NOTHING: Any = object()

_MAP_LIMIT = 15  # the header of a MessagePack map up to this size is a single byte: 0x80 + size
_HEADERS = [bytes([byte]) for byte in range(0x80 + _MAP_LIMIT + 1)]


_BY_NAME = {kind.__name__: kind for kind in (bool, int, float, str, bytes)} | {"None": type(None)}


def _declared(annotation: Any) -> Any:
    """An annotation for comparison with the type of a value; `Any` for no declaration."""
    if annotation is Parameter.empty or annotation in ("Any", "typing.Any"):
        return Any
    return _BY_NAME.get(annotation, annotation) if isinstance(annotation, str) else annotation


class Signature:
    """The encoding of a function's parameters and result at the durability boundary.

    Attributes:
        name: the function's qualified name for messages.
        parameters: the function's parameters, ignored parameters included.
        ignored: names of parameters outside of identity and inputs.
    """

    def __init__(self, fn: Callable[..., Any], ignore: Sequence[str], scope: Mapping[str, Any]) -> None:
        self.name: str = getattr(fn, "__qualname__", type(fn).__qualname__)
        self._signature = _signature_of(fn)
        self.parameters: Mapping[str, Parameter] = self._signature.parameters
        self.ignored = frozenset(ignore)
        unknown = self.ignored - set(self.parameters)
        if unknown:
            raise UsageError(f"{self.name}() has no parameter {', '.join(map(repr, sorted(unknown)))} to ignore")
        self._fn = fn
        self._scope = scope
        self._codecs: dict[str, Codec[Any]] = {}
        self._defaults: dict[str, bytes | None] = {}
        parameters = self.parameters.values()
        self._positional = tuple(
            p.name for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        )
        self._keywords = frozenset(
            p.name for p in parameters if p.kind in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        )
        self._required = frozenset(
            p.name for p in parameters
            if p.default is Parameter.empty and p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        )  # fmt: skip
        self._many = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
        self._rest = next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
        # For `identity`, per positional argument: default, type of the default, encoded name (None: ignored), and the
        # declared type as text or as an object, `Any` for no declaration.
        self._slots = tuple(
            (
                self.parameters[name].default,
                type(self.parameters[name].default),
                None if name in self.ignored else _encode(name),
                Any if name in self.ignored else _declared(self.parameters[name].annotation),
            )
            for name in self._positional
        )
        keyword_only = any(p.name in self._required and p.kind is Parameter.KEYWORD_ONLY for p in parameters)
        # Numbers of positional arguments that make a complete call without keywords: the fast path of `identity`.
        self._fewest = sys.maxsize if keyword_only else sum(1 for name in self._positional if name in self._required)
        self._most = min(len(self._positional), _MAP_LIMIT)

    @classmethod
    def of(cls, fn: Callable[..., Any], *, ignore: Sequence[str] = ()) -> Signature:
        """The signature of a function.

        Annotations with names that are not defined yet are resolved on first use; all others are checked now.

        Args:
            fn: any callable with a Python signature.
            ignore: parameters to leave out of identity and inputs (`self`, a client).

        Raises:
            UnsupportedTypeError: a declared type of a parameter or of the result cannot be stored.
            UsageError: `ignore` names no parameter.
        """
        if isinstance(ignore, str):
            raise UsageError(f"ignore={ignore!r} is one string; write ignore=({ignore!r},)")
        signature = cls(fn, ignore, _enclosing_scope(fn))
        checks: list[Callable[[], object]] = [
            functools.partial(signature._codec, name) for name in signature.parameters if name not in ignore
        ]
        for check in (*checks, signature._check_result):
            with contextlib.suppress(UnresolvedNameError):  # defined further down in the module, perhaps
                check()
        signature._scope = {}  # do not keep the frame's objects
        return signature

    def identity(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Canonical bytes of the bound arguments, without ignored arguments and arguments equal to the defaults.

        Equal for equal arguments in every process, passed by position or by name, in any order of dicts and sets. `1`,
        `1.0`, `True` and `"1"` differ.

        Raises:
            TypeError: the arguments do not fit the parameters.
            UnsupportedTypeError: an argument cannot be stored.
            ValueMismatchError: an argument does not fit its declared type.
        """
        if kwargs or not self._fewest <= len(args) <= self._most:
            return self._general_identity(args, kwargs)
        # The same bytes as from `_identity`: the map's header, then keys and values.
        body = b""
        count = 0x80
        place = 0
        slots = self._slots
        try:
            for value in args:
                default, default_type, key, declared = slots[place]
                cls = type(value)
                if cls is not declared and declared is not Any and cls in _SCALARS:
                    self._codec(self._positional[place]).encode(value)
                place += 1
                if value is default or key is None:
                    continue
                if cls not in _SCALARS:
                    return self._general_identity(args, kwargs)
                if cls is default_type:
                    if cls is float:  # 0.0 == -0.0 are two arguments; NaN != NaN is a single argument
                        return self._general_identity(args, kwargs)
                    if value == default:
                        continue
                body += key + _encode(value)
                count += 1
        except (OverflowError, UnicodeEncodeError):
            return self._general_identity(args, kwargs)
        return _HEADERS[count] + body

    def _general_identity(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        bound = self._bind(args, kwargs)
        for name, value, slot in zip(self._positional, args, self._slots):  # noqa: B905 - args may be fewer or more
            # `_identity` takes scalars as they are, so their types are compared here.
            declared = slot[3]
            if type(value) is not declared and declared is not Any and type(value) in _SCALARS:
                self._codec(name).encode(value)
        return self._identity(bound)

    def _identity(self, bound: Mapping[str, Any]) -> bytes:
        """The general case, over arguments in the order of the parameters."""
        wires: dict[str, object] = {}
        total = _Total(f"arguments of {self.name}", IDENTITY_LIMIT)
        for name, value in bound.items():
            if name in self.ignored or value is self.parameters[name].default:
                continue
            if name == self._many:
                wires[name] = [total.add(self._canonical(name, item)) for item in value]
            elif name == self._rest:
                wires[name] = {key: total.add(self._canonical(name, value[key])) for key in self._keys(value)}
            else:
                data = self._canonical(name, value)
                if not self._is_default(name, value, data):
                    wires[name] = msgspec.Raw(data)
        return _encode(wires)

    def _canonical(self, name: str, value: Any) -> bytes:
        if type(value) in _SCALARS:  # by the value alone, as in the fast case
            return ANY.canonical(value)
        codec = self._codec(name)
        try:
            return codec.canonical(value)
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{error}; {self._ignoring(name)}") from None

    def _ignoring(self, name: str) -> str:
        return f'or leave it out of the identity with @trace(ignore=("{name}",))'

    def _is_default(self, name: str, value: Any, data: bytes) -> bool:
        """Whether a value equals the default: same type, same bytes. No `__eq__` of the user's takes part."""
        default = self.parameters[name].default
        if type(default) is not type(value):
            return False
        if name not in self._defaults:
            try:
                self._defaults[name] = self._canonical(name, default)
            except (UnsupportedTypeError, ValueMismatchError):
                self._defaults[name] = None
        return self._defaults[name] == data

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter, in the order of the parameters; arguments that were not passed are absent."""
        given = dict(zip(self._positional, args))  # noqa: B905 - args may be fewer or more
        rest = {}
        wrong = len(args) > len(self._positional) and self._many is None
        for name, value in kwargs.items():
            if name in self._keywords:
                wrong = wrong or name in given
                given[name] = value
            else:
                rest[name] = value
        if wrong or (rest and self._rest is None) or not self._required <= given.keys():
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}() {error}") from None
        if self._many is not None and len(args) > len(self._positional):
            given[self._many] = args[len(self._positional) :]
        if self._rest is not None and rest:
            given[self._rest] = rest
        return {name: given[name] for name in self.parameters if name in given}

    def applied(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call another function with the same arguments, defaults included: by their names, where all have names."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        kinds = {parameter.kind for parameter in self.parameters.values()}
        if kinds <= {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}:
            return fn(**bound.arguments)
        return fn(*bound.args, **bound.kwargs)

    def coerced(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], how: Coercion
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments from outside: a dict for a dataclass, a Struct or a pydantic model becomes an instance.

        Raises:
            ValueMismatchError: a dict does not fit the declared class.
        """
        positional = tuple(
            self._coerced(name, value, how)
            for name, value in zip(self._positional, args)  # noqa: B905 - may be fewer
        )
        named = {
            name: self._coerced(name, value, how) if name in self._keywords else value for name, value in kwargs.items()
        }
        if how.defaults:
            given = self._positional[: len(args)]
            named |= {name: value for name, value in self._coerced_defaults(how) if name not in (*given, *named)}
        return (*positional, *args[len(positional) :]), named

    def _coerced_defaults(self, how: Coercion) -> Iterator[tuple[str, Any]]:
        """The parameters whose default does not stay as declared, with the new value."""
        for name in self._keywords - self._required:
            declared = self.parameters[name].default
            value = self._coerced(name, declared, how)
            if value is not declared:
                yield name, value

    def coerced_result(self, value: Any, how: Coercion) -> Any:
        """A result for callers; the items of a declared tuple are results of their own."""
        tp: Any = self.returns.annotation
        items = typing.get_args(tp)
        if typing.get_origin(tp) is tuple and type(value) is tuple and len(items) == len(value):
            return tuple(how.value(item, kind, self.returns.where) for item, kind in zip(value, items, strict=True))
        return how.value(value, tp, self.returns.where)

    def _coerced(self, name: str, value: Any, how: Coercion) -> Any:
        if name in self.ignored or type(value) not in (dict, list, tuple, str, datetime):
            return value
        codec = self._codec(name)
        return how.value(value, codec.annotation, codec.where)

    def encode_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The bound arguments by declared types, as a map from name to value, without ignored arguments.

        Raises:
            TypeError: the arguments do not fit the parameters.
            ValueMismatchError, UnsupportedTypeError: an argument does not fit its declared type; names the parameter.
            ValueTooLargeError: all together are over `INLINE_LIMIT`.
        """
        return self._inputs(self._bind(args, kwargs))

    def identity_and_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The results of `identity` and `encode_inputs`, with the same errors; the arguments are bound once."""
        bound = self._bind(args, kwargs)
        return self._identity(bound), self._inputs(bound)

    def _inputs(self, bound: Mapping[str, Any]) -> bytes:
        wires: dict[str, object] = {}
        total = _Total(f"inputs of {self.name}", INLINE_LIMIT)
        for name, value in bound.items():
            if name in self.ignored:
                continue
            encode = self._codec(name).encode
            if name == self._many:
                wires[name] = [total.add(encode(item)) for item in value]
            elif name == self._rest:
                self._keys(value)
                wires[name] = {key: total.add(encode(item)) for key, item in value.items()}
            else:
                wires[name] = msgspec.Raw(encode(value))
        data = _encode(wires)
        if len(data) > INLINE_LIMIT:
            raise ValueTooLargeError(too_large(f"inputs of {self.name}", f"{len(data):,}", INLINE_LIMIT))
        return data

    def decode_inputs(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments for the function: copies of the arguments of `encode_inputs`.

        Raises:
            ValueMismatchError: the bytes are corrupt, or do not fit the function's parameters.
        """
        try:
            raws = _decode_inputs(data)
        except Exception as error:  # corrupt bytes fail in several ways
            raise ValueMismatchError(f"inputs of {self.name}: cannot be read: {error}") from error
        unknown = raws.keys() - self.parameters.keys()
        missing = self._required - raws.keys() - self.ignored
        if unknown or missing:
            raise ValueMismatchError(
                f"inputs of {self.name}: recorded with {_names(raws)}, but its parameters are {_names(self.parameters)}"
            )
        many: list[Any] = []
        rest: dict[str, Any] = {}
        values: dict[str, Any] = {}
        try:
            for name, raw in raws.items():
                decode = self._codec(name).decode
                if name == self._many:
                    many = [decode(bytes(item)) for item in _decode_raws(raw)]
                elif name == self._rest:
                    rest = {key: decode(bytes(item)) for key, item in _decode_inputs(bytes(raw)).items()}
                else:
                    values[name] = decode(bytes(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueMismatchError(f"inputs of {self.name}: cannot be read: {error}") from error
        return self._arranged(values, many, rest)

    def _arranged(
        self, values: dict[str, Any], many: list[Any], rest: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional arguments up to the first gap; defaults fill gaps in front of positional-only arguments."""
        forced = len(self._positional) if many else 0
        for position, name in enumerate(self._positional):
            if name in values and self.parameters[name].kind is Parameter.POSITIONAL_ONLY:
                forced = max(forced, position + 1)
        args: list[Any] = []
        for position, name in enumerate(self._positional):
            if name in values:
                args.append(values.pop(name))
            elif position >= forced:
                break
            elif name in self._required:
                raise ValueMismatchError(f"inputs of {self.name}: nothing is recorded for ignored parameter {name!r}")
            else:
                args.append(self.parameters[name].default)
        return (*args, *many), {**values, **rest}

    def preview(self, data: bytes, limit: int = 200) -> str:
        """Bytes from `identity` or `encode_inputs` as `x=3, name='a'`, for people; never raises."""
        return preview_inputs(data, limit)

    @functools.cached_property
    def returns(self) -> Codec[Any]:
        """The codec of the return value: `Any` where nothing is declared, and for iterators (see `yields`)."""
        annotation = self._return_annotation()
        if _item_type(annotation) is not _NOTHING and _is_iterator(annotation):
            annotation = Any
        return codec_for(annotation, f"return value of {self.name}", self._scope)

    @functools.cached_property
    def yields(self) -> Codec[Any]:
        """The codec of the items of a generator, iterator or iterable; `Any` where no item type is declared."""
        item = _item_type(self._return_annotation())
        return codec_for(Any if item is _NOTHING else item, f"item of {self.name}", self._scope)

    def _check_result(self) -> object:
        generates = inspect.isgeneratorfunction(self._fn) or inspect.isasyncgenfunction(self._fn)
        return self.yields if generates or _is_iterator(self._return_annotation()) else self.returns

    def _return_annotation(self) -> Any:
        annotation = self._resolve(self._signature.return_annotation, f"return value of {self.name}")
        origin = typing.get_origin(annotation)
        if isinstance(origin, type) and issubclass(origin, abc.Awaitable):
            return typing.get_args(annotation)[-1]
        return annotation

    def _codec(self, name: str) -> Codec[Any]:
        codec = self._codecs.get(name)
        if codec is None:
            where = f"parameter {name!r} of {self.name}"
            try:
                codec = codec_for(self._resolve(self.parameters[name].annotation, where), where, self._scope)
            except UnresolvedNameError:
                raise
            except UnsupportedTypeError as error:
                raise UnsupportedTypeError(f"{error}; {self._ignoring(name)}") from None
            self._codecs[name] = codec
        return codec

    def _resolve(self, annotation: Any, where: str) -> Any:
        """An annotation with its strings evaluated where the function stands."""
        if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
            return annotation
        fn = _innermost(self._fn)
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        scope = {variable.__name__: variable for variable in getattr(fn, "__type_params__", ())}
        scope |= _closure_of(fn) | dict(self._scope)
        try:
            hints = typing.get_type_hints(holder, getattr(fn, "__globals__", {}), scope, include_extras=True)
        except NameError as error:
            raise UnresolvedNameError(f"{where}: annotation {annotation!r} cannot be resolved: {error}") from None
        except Exception as error:  # annotations are arbitrary expressions
            raise UnsupportedTypeError(f"{where}: annotation {annotation!r} is no type: {error}") from None
        return hints["it"]

    def _keys(self, rest: Mapping[str, Any]) -> list[str]:
        for key in rest:
            if not _wire.is_plain_text(key):
                raise ValueMismatchError(f"{self.name}(): {key!r} cannot be stored as the name of an argument")
        return sorted(rest)


class _Total:
    """Adds up encoded arguments, and refuses the first one beyond the limit."""

    def __init__(self, where: str, limit: int) -> None:
        self.where = where
        self.limit = limit
        self.size = 0

    def add(self, data: bytes) -> msgspec.Raw:
        self.size += len(data)
        if self.size > self.limit:
            raise ValueTooLargeError(too_large(self.where, f"more than {self.limit:,}", self.limit))
        return msgspec.Raw(data)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _item_type(annotation: Any) -> Any:
    """The item type of an iterable annotation; `_NOTHING` for other annotations and without an item type."""
    origin = typing.get_origin(annotation)
    if origin in _ITERABLES:
        args = typing.get_args(annotation)
        return args[0] if args else _NOTHING
    return _NOTHING


def _is_iterator(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, (abc.Iterator, abc.AsyncIterable))


def _signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    try:
        if sys.version_info >= (3, 14):  # annotations are evaluated on access there: leave unknown names alone
            import annotationlib

            return inspect.signature(fn, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{fn!r} has no signature that Python can tell: {error}") from None


def _innermost(fn: Any) -> Any:
    """The plain function behind wrappers, whose module resolves the annotations."""
    while True:
        fn = inspect.unwrap(fn)
        if hasattr(fn, "__globals__"):
            return fn
        if not isinstance(fn, functools.partial):
            called = vars(type(fn)).get("__call__")
            return called if hasattr(called, "__globals__") else fn
        fn = fn.func


def _closure_of(fn: Any) -> dict[str, Any]:
    held = {}
    cells: tuple[Any, ...] = getattr(fn, "__closure__", None) or ()
    for name, cell in zip(fn.__code__.co_freevars, cells, strict=True) if cells else ():
        with contextlib.suppress(ValueError):  # not assigned yet
            held[name] = cell.cell_contents
    return held


def _enclosing_scope(fn: Any) -> dict[str, Any]:
    """Local names around a function that is being defined inside another function or a class.

    Annotations may use local classes, which are in no module dictionary.
    """
    fn = _innermost(fn)
    qualname, space = getattr(fn, "__qualname__", ""), getattr(fn, "__globals__", None)
    scope: dict[str, Any] = {}
    frame = sys._getframe(1) if "." in qualname else None
    while frame is not None:
        outer = frame.f_code.co_qualname
        if frame.f_globals is space and qualname.startswith(f"{outer}."):
            scope = {**frame.f_locals, **scope}
        frame = frame.f_back
    return scope


def plain_inputs(data: bytes) -> dict[str, Any]:
    """Encoded arguments by name, each without its declared type.

    Raises:
        ValueMismatchError: the bytes are corrupt.
    """
    try:
        return {name: ANY.decode(bytes(raw)) for name, raw in _decode_inputs(data).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueMismatchError(f"inputs cannot be read: {error}") from error
