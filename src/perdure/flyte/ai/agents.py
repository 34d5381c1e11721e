"""Flyte's agents: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.ai.agents",
    (
        "AccessDenied",
        "Agent",
        "AgentEvent",
        "AgentProtocol",
        "AgentResult",
        "AgentTool",
        "ConcurrencyError",
        "LLMCallable",
        "LLMMessage",
        "MCPServerSpec",
        "MemoryMeta",
        "MemoryStore",
        "MemoryStoreError",
        "ToolCallHandler",
        "ToolFn",
        "agent_progress_cb",
        "tool",
    ),
    "call the model in a trace: its answers are recorded",
)
