"""The inputs and outputs of a task by name and type."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NativeInterface:
    """Inputs by name with type and default, and outputs by name with type."""

    inputs: dict[str, tuple[Any, Any]]
    outputs: dict[str, Any]
    docstring: str | None = None

    has_default = inspect.Parameter.empty

    @classmethod
    def from_callable(cls, func: Callable[..., Any]) -> NativeInterface:
        """The interface of a function."""
        hints = typing.get_type_hints(func, include_extras=True)
        inputs = {
            name: (hints.get(name, parameter.annotation), parameter.default)
            for name, parameter in inspect.signature(func).parameters.items()
        }
        return cls(inputs, _outputs(hints.get("return")), inspect.getdoc(func))

    @classmethod
    def from_types(
        cls,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        default_inputs: dict[str, Any] | None = None,
    ) -> NativeInterface:
        """The interface of that many types."""
        defaults = default_inputs or {}
        pairs = {
            name: declared if isinstance(declared, tuple) else (declared, defaults.get(name, inspect.Parameter.empty))
            for name, declared in inputs.items()
        }
        return cls(pairs, dict(outputs))

    def get_input_types(self) -> dict[str, Any]:
        """The types of the inputs."""
        return {name: declared for name, (declared, _) in self.inputs.items()}

    def required_inputs(self) -> list[str]:
        """The inputs without a default."""
        return [name for name, (_, default) in self.inputs.items() if default is inspect.Parameter.empty]

    def num_required_inputs(self) -> int:
        """How many inputs have no default."""
        return len(self.required_inputs())

    def has_outputs(self) -> bool:
        """Whether there are outputs."""
        return bool(self.outputs)

    def convert_to_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Positional arguments by their names."""
        if len(args) > len(self.inputs):
            raise ValueError(f"{len(args)} positional arguments for the inputs {', '.join(self.inputs) or '(none)'}")
        return {**dict(zip(self.inputs, args, strict=False)), **kwargs}

    @property
    def json_schema(self) -> dict[str, Any]:
        """The inputs as a JSON schema."""
        import msgspec

        types = [declared for declared, _ in self.inputs.values()]
        try:
            schemas, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
        except TypeError:  # a type that JSON does not know
            schemas, definitions = tuple({} for _ in types), {}
        found: dict[str, Any] = {"type": "object", "properties": dict(zip(self.inputs, schemas, strict=True))}
        found["required"] = self.required_inputs()
        return {**found, "$defs": definitions} if definitions else found


def _outputs(declared: Any) -> dict[str, Any]:
    if declared in (None, type(None), inspect.Parameter.empty):
        return {}
    if isinstance(declared, type) and issubclass(declared, tuple) and hasattr(declared, "_fields"):
        return typing.get_type_hints(declared)
    parts = typing.get_args(declared) if typing.get_origin(declared) is tuple else (declared,)
    return {f"o{number}": part for number, part in enumerate(parts)}
