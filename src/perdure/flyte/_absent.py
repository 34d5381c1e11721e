"""Names of Flyte that have no meaning without a cluster: each can be imported, and raises one sentence when used."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NoReturn

from ..errors import UsageError


class Absent:
    """A name that is absent by design."""

    def __init__(self, name: str, why: str) -> None:
        self._name = name
        self._why = why

    def __repr__(self) -> str:
        return f"<{self._name}, absent in perdure>"

    def _refuse(self) -> NoReturn:
        raise UsageError(f"{self._name} is absent in perdure: {self._why}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UsageError(f"{self._name}.{name} is absent in perdure: {self._why}")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        self._refuse()

    # Annotations and checks that merely mention the name stay possible.

    def __instancecheck__(self, value: object) -> bool:
        return False

    def __subclasscheck__(self, cls: type) -> bool:
        return False

    def __getitem__(self, parameters: Any) -> Any:
        return Any

    def __or__(self, other: Any) -> Any:
        return Any

    def __ror__(self, other: Any) -> Any:
        return Any


def absent_names(module: str, names: Collection[str], why: str) -> Callable[[str], Any]:
    """A module's `__getattr__` that gives an `Absent` for each of the names.

    Args:
        module: the module under Flyte's name, such as `flyte.remote`.
        why: the end of the sentence: the reason, and the remedy.
    """

    def getter(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return Absent(f"{module}.{name}", why)

    return getter
