"""Where each input goes: values and their forms as a tree of names, followed by staging and metadata alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from perdure.containers.copilot.leaves import Leaf
from perdure.containers.copilot.names import check_key, distinct
from perdure.containers.copilot.types import Choice, Form, Listing, Reference, Table

Layout = Literal["DIRECT", "NAMED_DIR"]


class Chosen(NamedTuple):
    """The member of a union that a value belongs to."""

    union: Choice
    position: int


@dataclass(frozen=True, eq=False)
class Placed:
    """A value in its place.

    Attributes:
        form: the form of the value; of the member, where a union is declared.
        path: the place below the input directory.
        children: the entries of the value's directory, by name.
        choice: the declared union, if any.
    """

    form: Leaf | Reference | Listing | Table
    value: Any
    path: str
    children: dict[str, Placed]
    choice: Chosen | None = None

    @property
    def reference(self) -> str:
        """The path of the file or directory itself: a file under NAMED_DIR may lie one level below."""
        return next(iter(self.children.values())).reference if self.children else self.path

    @property
    def holder(self) -> bool:
        """Whether this is only the directory that holds a `File` under the file's own name."""
        return isinstance(self.form, Reference) and bool(self.children)

    def items(self) -> Iterator[Placed]:
        """The items of a list or a dict, in order."""
        return iter(self.children.values())


def place(form: Form, value: Any, path: str, layout: Layout) -> Placed:
    """Lay out a value that was checked against its type.

    Raises:
        UsageError: the key of a dict cannot be the name of a file.
    """
    return _place(form, value, path, layout == "NAMED_DIR")


def _place(form: Form, value: Any, path: str, named: bool) -> Placed:
    choice = _chosen(form, value)
    own = form if choice is None else choice.union.members[choice.position]
    assert not isinstance(own, Choice)
    children: dict[str, Placed] = {}
    match own:
        case Reference(kind="file") if named:
            children = {value.name: Placed(own, value, f"{path}/{value.name}", {})}
        case Listing():
            basenames = [item.name if named and _is_file(own.item, item) else None for item in value]
            for name, basename, item in zip(distinct(basenames), basenames, value, strict=True):
                # A file in a list has its own name already, and no directory besides.
                children[name] = _place(own.item, item, f"{path}/{name}", named and basename is None)
        case Table():
            for key, item in value.items():
                check_key(key)
                children[key] = _place(own.item, item, f"{path}/{key}", named)
    return Placed(own, value, path, children, choice)


def _chosen(form: Form, value: Any) -> Chosen | None:
    return Chosen(form, form.pick(value)) if isinstance(form, Choice) else None


def _is_file(form: Form, value: Any) -> bool:
    choice = _chosen(form, value)
    own = form if choice is None else choice.union.members[choice.position]
    return isinstance(own, Reference) and own.kind == "file"
