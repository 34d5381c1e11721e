"""Flyte"s sandboxes: absent."""

from __future__ import annotations

from ._absent import absent_names

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
        "orchestrator_from_str",
        "sandbox_environment",
    ),
    "run untrusted code in a ContainerTask",
)
