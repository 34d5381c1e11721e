"""From a declared type to a form: the values in files and in JSON.

A form is a leaf (one file of text or bytes), a reference (a `File` or `Dir`), a list or a dict (a directory of
forms, or one file of JSON) or a choice (a union). `perdure.core.ground.values` reads the annotation; msgspec and
pydantic write and read records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

from perdure.containers.copilot.leaves import (
    BY_CLASS,
    BY_NODE,
    NONE,
    Kind,
    Leaf,
    NoForm,
    enum_leaf,
    literal_leaf,
    record_leaf,
)
from perdure.core.ground.values import codec_for, nodes
from perdure.errors import UnsupportedTypeError

SUPPORTED: Final = (
    "str, int, bool, float, bytes, datetime, date, timedelta, Decimal, UUID, None, Enum, Literal, dataclass, "
    "msgspec.Struct, TypedDict, pydantic model, File, Dir, and list[...], dict[str, ...], Optional and unions of them"
)


class FileTypes(Protocol):
    """The classes for files and directories, defined in a layer above."""

    @property
    def file_type(self) -> type: ...

    @property
    def dir_type(self) -> type: ...


@dataclass(frozen=True, eq=False)
class Reference:
    """A `File` or a `Dir`."""

    label: str
    kind: Literal["file", "dir"]


@dataclass(frozen=True, eq=False)
class Listing:
    """A directory `0`, `1`, ..."""

    label: str
    item: Form
    kind: Literal["list"] = "list"


@dataclass(frozen=True, eq=False)
class Table:
    """A directory of one entry per key."""

    label: str
    item: Form
    kind: Literal["dict"] = "dict"


@dataclass(frozen=True, eq=False)
class Choice:
    """A union without unions among the members.

    Attributes:
        members: as declared, `None` last.
        pick: from a value to the position of its member.
    """

    label: str
    members: tuple[Leaf | Reference | Listing | Table, ...]
    pick: Callable[[Any], int]
    kind: Literal["choice"] = "choice"

    @property
    def tries(self) -> Iterator[Leaf | Reference | Listing | Table]:
        """The members in the order of reading: the narrowest first."""
        return iter(sorted(self.members, key=lambda member: _ORDER.index(member.kind)))


Form = Leaf | Reference | Listing | Table | Choice

_ORDER: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, eq=False)
class Declared:
    """An input or output: the form, and the check of a value."""

    form: Form
    label: str
    check: Callable[[object], Any]
    """The value in its declared type (an int for a float becomes a float); `ValueMismatchError` where a value does
    not fit."""


def declared(annotation: object, where: str, files: FileTypes) -> Declared:
    """Compile the declaration of `where`, such as `input 'x'`.

    Raises:
        UnsupportedTypeError: the type has no form.
    """
    codec = codec_for(annotation, where)
    label = nodes.type_text(annotation)
    try:
        form = _form(nodes.node_of(annotation), files, ())
    except NoForm as refused:
        raise UnsupportedTypeError(
            f"{where}: type `{label}` cannot cross into a container: {refused}; supported are {SUPPORTED}"
        ) from None

    def check(value: object) -> Any:
        _, decoded = codec.roundtrip(value)
        return decoded

    return Declared(form, label, check)


def _form(node: nodes.Node, files: FileTypes, above: tuple[nodes.Node, ...]) -> Form:
    match node:
        case nodes.RefNode():
            if node in above:
                raise NoForm(f"`{node.label}` contains itself; use a dataclass, which is one file of JSON")
            return _form(node.target, files, (*above, node))
        case nodes.FileNode():
            return Reference(node.label, "file" if node.cls is files.file_type else "dir")
        case nodes.ArrayNode() if node.build is list:
            return Listing(node.label, _form(node.item, files, above))
        case nodes.DictNode():
            if not isinstance(node.key, nodes.StrNode):
                raise NoForm(f"the keys of `{node.label}` become names of files: use dict[str, ...]")
            return Table(node.label, _form(node.item, files, above))
        case nodes.OptionalNode() | nodes.UnionNode():
            return _choice(node, files, above)
        case nodes.RecordNode() if not isinstance(node, nodes.NamedTupleNode):
            return record_leaf(node)
        case nodes.EnumNode():
            return enum_leaf(node)
        case nodes.LiteralNode():
            return literal_leaf(node)
        case nodes.LeafNode() if node.cls in BY_CLASS:
            return BY_CLASS[node.cls]
    for cls, leaf in BY_NODE.items():
        if isinstance(node, cls):
            return leaf
    raise NoForm(f"`{node.label}` has no form there; {_remedy(node)}")


def _remedy(node: nodes.Node) -> str:
    match node:
        case nodes.AnyNode():
            return "say what it holds, such as list[str] or dict[str, int]"
        case nodes.PathNode():
            return "use File or Dir for what lies there, or str for its name"
        case nodes.ArrayNode() | nodes.TupleNode():
            return "use a list or a dataclass"
        case nodes.NamedTupleNode():
            return "use a dataclass"
    return "use str or a dataclass"


# -- unions ----------------------------------------------------------------------------------------------------------


def _choice(node: nodes.OptionalNode | nodes.UnionNode, files: FileTypes, above: tuple[nodes.Node, ...]) -> Choice:
    inner, optional = (node.inner, True) if isinstance(node, nodes.OptionalNode) else (node, False)
    branches = list(inner.members) if isinstance(inner, nodes.UnionNode) else [inner]
    members: list[Leaf | Reference | Listing | Table] = []
    picks: list[tuple[int, Choice | None]] = []  # for each branch: the position, and the nested choice
    for branch in branches:
        form = _form(branch, files, above)
        nested = form if isinstance(form, Choice) else None
        picks.append((len(members), nested))
        members.extend(nested.members if nested else [form])  # type: ignore[list-item]
    if optional:
        members.append(NONE)

    def pick(value: Any) -> int:
        if optional and value is None:
            return len(members) - 1
        branch = inner.choose(value, nodes.Mode(False))[0] if isinstance(inner, nodes.UnionNode) else 0
        position, nested = picks[branch]
        return position + (nested.pick(value) if nested else 0)

    return Choice(node.label, tuple(members), pick)
