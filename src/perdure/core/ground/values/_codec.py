"""Codecs: values of a declared type to bytes and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from perdure.core.ground.values import _wire
from perdure.core.ground.values._compile import UnresolvedNameError, is_native, is_scalar, node_of
from perdure.core.ground.values._containers import DictNode
from perdure.core.ground.values._hints import annotation_for
from perdure.core.ground.values._names import type_text
from perdure.core.ground.values._nodes import AnyNode, IntNode, Misfit, Node, multiplies, walk
from perdure.core.ground.values._records import DataclassNode
from perdure.core.ground.values._wire import IDENTITY_LIMIT, INLINE_LIMIT, Mode, TooLarge
from perdure.errors import StoreError, UnsupportedTypeError, ValueMismatchError, ValueTooLargeError

T = TypeVar("T")

_encode = _wire.encode
_encode_sorted = msgspec.msgpack.Encoder(order="deterministic").encode


class Codec(Generic[T]):
    """Checks values against a declared type, encodes and decodes them.

    Attributes:
        annotation: the declared type.
        where: the declared place as messages name it, such as "return value of fetch".
    """

    __slots__ = ("_node", "annotation", "where")

    annotation: object
    where: str

    def __init__(self, annotation: object, where: str, node: Node) -> None:
        self.annotation = annotation
        self.where = where
        self._node = node

    def __repr__(self) -> str:
        return f"<codec of {self._node.label} for {self.where}>"

    def encode(self, value: T) -> bytes:
        """The value as bytes.

        Raises:
            ValueMismatchError: the value does not fit the declaration.
            UnsupportedTypeError: nothing is declared, and the value needs a declaration.
            ValueTooLargeError: the bytes are over `INLINE_LIMIT`.
        """
        return self._within_limit(self._dump(value, canonical=False))

    def decode(self, data: bytes) -> T:
        """The value of bytes from `encode`.

        Raises:
            ValueMismatchError: the bytes are corrupt, or the value does not fit the declaration.
        """
        return self._load(data)

    def reads(self, data: bytes) -> bool:
        """Whether `decode` takes the bytes."""
        try:
            self.decode(data)
        except ValueMismatchError:
            return False
        return True

    def roundtrip(self, value: object) -> tuple[bytes, T]:
        """The bytes, and the copy that `decode` makes of the bytes. Callers get the copy, live as on replay."""
        data = self.encode(value)  # type: ignore[arg-type]
        return data, self.decode(data)

    def canonical(self, value: object) -> bytes:
        """Canonical bytes: equal for equal values in every process, in any order of dicts and sets."""
        return self._dump(value, canonical=True)

    def _dump(self, value: object, canonical: bool) -> bytes:
        mode = Mode(canonical)
        try:
            wire = self._node.dump(value, mode)
            if mode.room < 0:
                self._refuse_size(mode.limit)
            return _encode(wire)
        except Misfit as misfit:
            self._refuse(misfit)
        except TooLarge:
            self._refuse_size(mode.limit)
        except RecursionError:
            raise ValueMismatchError(f"{self.where}: the value contains itself, or is nested too deeply") from None

    def _load(self, data: bytes) -> T:
        try:
            return self._node.load(_wire.decode_any(data))  # type: ignore[return-value]
        except Misfit as misfit:
            place = "".join(reversed(misfit.path))
            note = f" ({misfit.note})" if misfit.note else ""
            raise ValueMismatchError(
                f"{self.where}: what is stored does not fit `{self._node.label}`{place and f' at {place}'}: "
                f"expected `{misfit.expected}`, found {_found(misfit.found)}{note}"
            ) from None
        except StoreError:  # the bytes are good, but the content of a data frame is not there
            raise
        except Exception as error:  # corrupt bytes fail in as many ways as there are types
            raise ValueMismatchError(
                f"{self.where}: what is stored cannot be read as `{self._node.label}`: {type(error).__name__}: {error}"
            ) from error

    def _within_limit(self, data: bytes) -> bytes:
        if len(data) > INLINE_LIMIT:
            raise ValueTooLargeError(too_large(self.where, f"{len(data):,}", INLINE_LIMIT))
        return data

    def _refuse_size(self, limit: int) -> NoReturn:
        raise ValueTooLargeError(too_large(self.where, f"more than {limit:,}", limit)) from None

    def _refuse(self, misfit: Misfit) -> NoReturn:
        place = "".join(reversed(misfit.path))
        where = f"{self.where}, at {place}" if place else self.where
        found = _found(misfit.found)
        note = f" ({misfit.note})" if misfit.note else ""
        if hasattr(type(misfit.found), "__await__"):
            raise ValueMismatchError(f"{where}: got {found}; did you forget `await` in front of the call?") from None
        fits = annotation_for(misfit.found)
        if misfit.expected == "Any" and not misfit.note:
            remedy = f"annotate it as `{fits}`" if fits else "store the data it holds instead, such as a dict"
            raise UnsupportedTypeError(f"{where}: {found} cannot be stored without a declared type; {remedy}") from None
        label = misfit.expected if place else self._node.label
        if misfit.note:
            remedy = ""
        elif fits is None:
            remedy = "; no annotation fits it: return the data it holds instead, such as a dict"
        elif misfit.found is None:
            remedy = f"; `{label} | None` would fit"
        else:
            remedy = f"; `{fits}` would fit"
        declared = f" (declared: `{self._node.label}`)" if place else ""
        kind = "expected" if place else "declared"
        raise ValueMismatchError(f"{where}: {kind} `{label}`, got {found}{note}{remedy}{declared}") from None


def too_large(where: str, size: str, limit: int) -> str:
    """The message of a `ValueTooLargeError`."""
    what = "inline limit" if limit == INLINE_LIMIT else "limit"
    return (
        f"{where}: {size} bytes when encoded, over the {what} of {limit:,} bytes; pass large data as perdure.io.File "
        "or perdure.io.Dir"
    )


def _found(value: object) -> str:
    if value is None:
        return "None"
    if type(value) in _wire.SCALARS:
        return f"{type(value).__name__} {_wire.short(value)}"
    return f"a value of type `{type_text(type(value))}`"


class _AnyCodec(Codec[Any]):
    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        if type(value) in _wire.SCALARS:
            try:
                data = _encode(value)
            except (OverflowError, UnicodeEncodeError):
                data = self._dump(value, canonical=False)
            return data if len(data) <= INLINE_LIMIT else self._within_limit(data)
        return super().encode(value)

    def decode(self, data: bytes) -> Any:
        try:
            return _wire.decode_any(data)
        except Exception:
            return self._load(data)  # the error names the fault

    def roundtrip(self, value: object) -> tuple[bytes, Any]:
        data = self.encode(value)
        return data, value if type(value) in _wire.SCALARS else self.decode(data)

    def canonical(self, value: object) -> bytes:
        if type(value) in _wire.SCALARS:
            try:
                return _encode(value)
            except (OverflowError, UnicodeEncodeError):
                pass
        return self._dump(value, canonical=True)


class _NativeCodec(Codec[T]):
    """A type that msgspec alone handles; the nodes handle only the values that msgspec refuses.

    msgspec does not check values against a declaration when it writes. Therefore the copy is read back under the
    declaration and compared with the original. Only Python's own `__eq__` methods take part. A value that differs from
    the copy, as NaN does, is judged by the nodes.
    """

    __slots__ = ("_checks_keys", "_decode", "_multiplies")

    def __init__(self, annotation: object, where: str, node: Node, decoder: msgspec.msgpack.Decoder[T]) -> None:
        super().__init__(annotation, where, node)
        self._decode = decoder.decode
        self._multiplies = multiplies(node)
        self._checks_keys = any(isinstance(part, DictNode) and isinstance(part.key, IntNode) for part in walk(node))

    def _weigh(self, value: object, limit: int) -> None:
        try:
            if self._node.weigh(value, limit) > limit:
                self._refuse_size(limit)
        except TooLarge:
            self._refuse_size(limit)

    def encode(self, value: T) -> bytes:
        return self.roundtrip(value)[0]

    def decode(self, data: bytes) -> T:
        try:
            if self._checks_keys:
                _wire.check_keys(data)
            return self._decode(data)
        except Exception:
            return self._load(data)

    def roundtrip(self, value: object) -> tuple[bytes, T]:
        try:
            if self._multiplies:
                self._weigh(value, INLINE_LIMIT)
            data = _encode(value)
            copy = self._decode(data)
            same = copy == value
        except ValueTooLargeError:
            raise
        except Exception:
            same = False
        if same is not True:
            data = self._dump(value, canonical=False)
            copy = self.decode(data)
        return data if len(data) <= INLINE_LIMIT else self._within_limit(data), copy

    def canonical(self, value: object) -> bytes:
        try:
            if self._multiplies:
                self._weigh(value, IDENTITY_LIMIT)
            data = _encode_sorted(value)
            if (self._decode(data) == value) is True:
                return data
        except ValueTooLargeError:
            raise
        except Exception:  # the nodes write the value, or say what is wrong
            pass
        return self._dump(value, canonical=True)


class _DataclassCodec(_NativeCodec[T]):
    """A native dataclass. Comparing the instances' dicts gives the same as `__eq__`, at a quarter of the price."""

    __slots__ = ("_cls",)

    def __init__(self, annotation: object, where: str, node: Node, decoder: msgspec.msgpack.Decoder[T]) -> None:
        super().__init__(annotation, where, node, decoder)
        self._cls = node.types[0]

    def roundtrip(self, value: object) -> tuple[bytes, T]:
        if type(value) is self._cls:
            try:
                if self._multiplies:
                    self._weigh(value, INLINE_LIMIT)
                data = _encode(value)
                copy = self._decode(data)
                if copy.__dict__ == value.__dict__:
                    return data if len(data) <= INLINE_LIMIT else self._within_limit(data), copy
            except ValueTooLargeError:
                raise
            except Exception:  # the nodes write the value, or say what is wrong
                pass
        data = self._within_limit(self._dump(value, canonical=False))
        return data, self.decode(data)


class _ScalarCodec(_NativeCodec[T]):
    """An immutable built-in type, or a union of such types: a value of exactly such a type needs no copy."""

    __slots__ = ("_types",)

    def __init__(self, annotation: object, where: str, node: Node, decoder: msgspec.msgpack.Decoder[T]) -> None:
        super().__init__(annotation, where, node, decoder)
        self._types = frozenset(node.types)

    def encode(self, value: T) -> bytes:
        if type(value) in self._types:
            try:
                data = _encode(value)
            except (OverflowError, UnicodeEncodeError):
                data = self._dump(value, canonical=False)
            return data if len(data) <= INLINE_LIMIT else self._within_limit(data)
        return self._within_limit(self._dump(value, canonical=False))

    def roundtrip(self, value: Any) -> tuple[bytes, T]:
        if type(value) in self._types:
            try:
                data = _encode(value)
            except (OverflowError, UnicodeEncodeError):
                data = self._dump(value, canonical=False)
            return data if len(data) <= INLINE_LIMIT else self._within_limit(data), value
        data = self.encode(value)
        return data, self.decode(data)

    def canonical(self, value: object) -> bytes:
        if type(value) in self._types:
            try:
                return _encode(value)
            except (OverflowError, UnicodeEncodeError):
                pass
        return self._dump(value, canonical=True)


def codec_for(annotation: object, where: str = "value", scope: Mapping[str, Any] | None = None) -> Codec[Any]:
    """The codec of a declared type, compiled once.

    Args:
        annotation: a type with its string annotations resolved; `inspect.Parameter.empty` means `Any`.
        where: the declared place as messages name it.
        scope: further names for the field annotations of classes, besides the names of the modules.

    Raises:
        UnsupportedTypeError: values of the type cannot cross the durability boundary.
    """
    try:
        try:
            return _cached(annotation, where)
        except UnresolvedNameError:
            if not scope:
                raise
            return _codec(annotation, where, scope)
        except UnsupportedTypeError:
            raise
        except TypeError:  # an unhashable annotation
            return _codec(annotation, where, scope)
    except UnresolvedNameError as error:
        raise UnresolvedNameError(f"{where}: {error}") from None
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(f"{where}: type `{type_text(annotation)}` cannot be stored: {error}") from None


def _codec(annotation: object, where: str, scope: Mapping[str, Any] | None = None) -> Codec[Any]:
    node = node_of(annotation, scope)
    if isinstance(node, AnyNode):
        return _AnyCodec(annotation, where, node)
    decoder = _native_decoder(annotation, node)
    if decoder is None:
        return Codec(annotation, where, node)
    if is_scalar(node):
        return _ScalarCodec(annotation, where, node, decoder)
    if isinstance(node, DataclassNode) and not any("__slots__" in vars(base) for base in node.cls.__mro__):
        return _DataclassCodec(annotation, where, node, decoder)
    return _NativeCodec(annotation, where, node, decoder)


_cached = lru_cache(maxsize=4096)(_codec)


def _native_decoder(annotation: Any, node: Node) -> msgspec.msgpack.Decoder[Any] | None:
    if not is_native(node):
        return None
    try:
        return msgspec.msgpack.Decoder(annotation)
    except Exception:  # msgspec does not know all annotations of Python; the nodes do
        return None


ANY: Codec[object] = codec_for(Any)
