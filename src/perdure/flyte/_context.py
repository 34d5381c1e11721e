"""Where am I: `ctx`, labels, and traces."""

from __future__ import annotations

from typing import Any

from ..api.context import ctx, group
from ..api.trace import trace
from ._absent import absent_names

__all__ = ["ctx", "custom_context", "get_custom_context", "group", "trace"]


def custom_context(**context: str) -> Any:
    """Values that the actions of a block can read."""
    raise NotImplementedError


def get_custom_context() -> dict[str, str]:
    """The values of the enclosing `custom_context` blocks."""
    return {}


__getattr__ = absent_names(
    "flyte", ("load_interactive_ctx",), "there is no remote action to attach to; look at a run with: perdure show NAME"
)
