"""`inputs.pb`: a serialized Flyte `LiteralMap`, for containers that read protobuf. Needs the `flyteidl2` package.

A member of a union is a `Union` with the member's type, as in Flyte; a record is a `Binary` of MessagePack; raw bytes
are a `Binary` without a tag. `date`, `Decimal` and `UUID` are strings, as Flyte lacks the types.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perdure.containers.copilot.leaves import Leaf
from perdure.containers.copilot.placing import Placed
from perdure.containers.copilot.types import Choice, Form, Listing, Reference, Table
from perdure.errors import UsageError

if TYPE_CHECKING:
    from flyteidl2.core import literals_pb2, types_pb2

_SIMPLE = {
    "none": "NONE", "int": "INTEGER", "bool": "BOOLEAN", "float": "FLOAT", "str": "STRING", "datetime": "DATETIME",
    "timedelta": "DURATION", "bytes": "BINARY", "record": "STRUCT", "date": "STRING", "decimal": "STRING",
    "uuid": "STRING",
}  # fmt: skip


def is_installed() -> bool:
    """Whether the package is there."""
    try:
        import flyteidl2.core.literals_pb2  # noqa: F401
    except ImportError:
        return False
    return True


def check_installed() -> None:
    """Raises `UsageError` where the package is missing."""
    try:
        import flyteidl2.core.literals_pb2  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f'metadata_format="PROTO" needs the package flyteidl2 ({error}): run `pip install "perdure[proto]"`'
        ) from None


def literal_map(inputs: Iterable[Placed], container_dir: str) -> bytes:
    """All inputs as a `LiteralMap`, the same bytes for the same inputs."""
    check_installed()
    data: bytes = _map({item.path: item for item in inputs}, container_dir).SerializeToString(deterministic=True)
    return data


def _map(items: dict[str, Placed], container_dir: str) -> literals_pb2.LiteralMap:
    from flyteidl2.core import literals_pb2 as pb

    return pb.LiteralMap(literals={name: _literal(item, container_dir) for name, item in items.items()})


def _literal(item: Placed, container_dir: str) -> literals_pb2.Literal:
    from flyteidl2.core import literals_pb2 as pb

    match item.form:
        case Leaf():
            literal = pb.Literal(scalar=_scalar(item.form, item.value))
        case Reference():
            kind = pb.BlobMetadata(type=_blob_type(item.form))
            uri = posixpath.join(container_dir, item.reference)
            literal = pb.Literal(scalar=pb.Scalar(blob=pb.Blob(metadata=kind, uri=uri)))
        case Listing():
            literals = [_literal(child, container_dir) for child in item.items()]
            literal = pb.Literal(collection=pb.LiteralCollection(literals=literals))
        case Table():
            literal = pb.Literal(map=_map(item.children, container_dir))
    if item.choice is None:
        return literal
    return pb.Literal(scalar=pb.Scalar(union=pb.Union(value=literal, type=_type(item.form))))


def _scalar(form: Leaf, value: Any) -> literals_pb2.Scalar:
    import msgspec
    from flyteidl2.core import literals_pb2 as pb

    match form.kind:
        case "none":
            return pb.Scalar(none_type=pb.Void())
        case "bytes":
            return pb.Scalar(binary=pb.Binary(value=value))
        case "record":
            packed = msgspec.msgpack.encode(form.dump(value))
            return pb.Scalar(binary=pb.Binary(value=packed, tag="msgpack"))
    return pb.Scalar(primitive=_primitive(form, value))


def _primitive(form: Leaf, value: Any) -> literals_pb2.Primitive:
    from datetime import UTC

    from flyteidl2.core import literals_pb2 as pb
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    kind = form.kind
    if kind == "literal":
        kind = "bool" if type(value) is bool else "int" if type(value) is int else "str"
    match kind:
        case "int":
            if not -(2**63) <= value < 2**63:
                raise UsageError(f'{value} is over the 64 bits of inputs.pb: use metadata_format="JSON"')
            return pb.Primitive(integer=value)
        case "bool":
            return pb.Primitive(boolean=value)
        case "float":
            return pb.Primitive(float_value=value)
        case "datetime":
            stamp = Timestamp()
            stamp.FromDatetime(value.replace(tzinfo=UTC) if value.utcoffset() is None else value)
            return pb.Primitive(datetime=stamp)
        case "timedelta":
            span = Duration()
            try:
                span.FromTimedelta(value)
            except ValueError as error:
                raise UsageError(f"{value!r} cannot stand in inputs.pb ({error}): use a shorter span") from None
            return pb.Primitive(duration=span)
    return pb.Primitive(string_value=form.write(value).decode())


def _type(form: Form) -> types_pb2.LiteralType:
    from flyteidl2.core import types_pb2 as pb

    match form:
        case Reference():
            return pb.LiteralType(blob=_blob_type(form))
        case Listing():
            return pb.LiteralType(collection_type=_type(form.item))
        case Table():
            return pb.LiteralType(map_value_type=_type(form.item))
        case Choice():
            return pb.LiteralType(union_type=pb.UnionType(variants=[_type(member) for member in form.members]))
    tag = pb.TypeStructure(tag=form.kind)
    if form.kind == "enum":
        return pb.LiteralType(enum_type=pb.EnumType(values=form.options), structure=tag)
    if form.kind == "literal":
        kinds = {type(option) for option in form.options}
        simple = "BOOLEAN" if kinds == {bool} else "INTEGER" if kinds == {int} else "STRING"
    else:
        simple = _SIMPLE[form.kind]
    return pb.LiteralType(simple=getattr(pb, simple), structure=tag)


def _blob_type(form: Reference) -> types_pb2.BlobType:
    from flyteidl2.core import types_pb2 as pb

    single = pb.BlobType.BlobDimensionality.SINGLE
    return pb.BlobType(dimensionality=single if form.kind == "file" else pb.BlobType.BlobDimensionality.MULTIPART)
