"""Flyte"s types."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.types",
    (
        "FlytePickle",
        "Renderable",
        "TypeEngine",
        "TypeTransformer",
        "TypeTransformerFailedError",
        "guess_interface",
        "literal_string_repr",
    ),
    "perdure has types of its own",
)
