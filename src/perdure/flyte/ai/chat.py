"""Flyte's chat applications: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.ai.chat",
    (
        "CHAT_HTML_TEMPLATE",
        "CUSTOM_THEME_CSS_TEMPLATE",
        "DEFAULT_CSS",
        "AgentChatAppEnvironment",
        "CustomTheme",
        "build_chat_html",
    ),
    "perdure serves no web applications; run the server as a program of its own",
)
