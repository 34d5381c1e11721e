"""Flyte's sandboxes: absent; a sandboxed task can be declared, and called with `forward`."""

from __future__ import annotations

from ._absent import absent_names
from ._sandboxed import WHY, orchestrator_from_str

__all__ = ["orchestrator_from_str"]

__getattr__ = absent_names(
    "flyte.sandbox",
    (
        "ORCHESTRATOR_SYNTAX_PROMPT",
        "CodeTaskTemplate",
        "ImageConfig",
        "SandboxedConfig",
        "SandboxedTaskTemplate",
        "create",
        "orchestrate_local",
        "sandbox_environment",
    ),
    WHY,
)
