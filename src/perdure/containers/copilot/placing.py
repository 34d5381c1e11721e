"""Where each input goes: values and their forms as one tree of names, which staging and metadata both follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from perdure.containers.copilot.leaves import Leaf
from perdure.containers.copilot.names import check_key, distinct
from perdure.containers.copilot.types import Choice, Form, Listing, Reference, Table

Layout = Literal["DIRECT", "NAMED_DIR"]


@dataclass(frozen=True, eq=False)
class Placed:
    """A value in its place.

    Attributes:
        form: its form, that of the member where a union is declared.
        path: where it lies below the input directory.
        children: what lies in its directory, by name.
        choice: the union that it is declared as, if any, and the position of its member.
    """

    form: Leaf | Reference | Listing | Table
    value: Any
    path: str
    children: dict[str, Placed]
    choice: tuple[Choice, int] | None = None

    @property
    def reference(self) -> str:
        """The path of the file or directory itself: under NAMED_DIR it may lie one level below."""
        return next(iter(self.children.values())).reference if self.children else self.path

    @property
    def holder(self) -> bool:
        """Whether this is but the directory that a `File` or `Dir` lies in under its own name."""
        return isinstance(self.form, Reference) and bool(self.children)

    def items(self) -> Iterator[Placed]:
        """What a list or a dict holds, in its order."""
        return iter(self.children.values())


def place(form: Form, value: Any, path: str, layout: Layout) -> Placed:
    """Lay out a value that was checked against its type.

    Raises:
        UsageError: the key of a dict cannot be the name of a file.
    """
    return _place(form, value, path, layout == "NAMED_DIR")


def _place(form: Form, value: Any, path: str, named: bool) -> Placed:
    form, choice = _resolved(form, value)
    children: dict[str, Placed] = {}
    match form:
        case Reference() if named:
            children = {value.name: Placed(form, value, f"{path}/{value.name}", {})}
        case Listing():
            forms = [_resolved(form.item, item)[0] for item in value]
            own = [
                item.name if named and isinstance(of, Reference) else None
                for of, item in zip(forms, value, strict=True)
            ]
            for name, basename, item in zip(distinct(own), own, value, strict=True):
                # A file in a list has its own name already, and no directory besides.
                children[name] = _place(form.item, item, f"{path}/{name}", named and basename is None)
        case Table():
            for key, item in value.items():
                check_key(key)
                children[key] = _place(form.item, item, f"{path}/{key}", named)
    return Placed(form, value, path, children, choice)


def _resolved(form: Form, value: Any) -> tuple[Leaf | Reference | Listing | Table, tuple[Choice, int] | None]:
    if not isinstance(form, Choice):
        return form, None
    position = form.pick(value)
    return form.members[position], (form, position)
