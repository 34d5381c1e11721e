"""Flyte's web applications: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.app.extras",
    (
        "FastAPIAppEnvironment",
        "FastAPIPassthroughAuthMiddleware",
        "FlyteWebhookAppEnvironment",
    ),
    "perdure serves no web applications; run the server as a program of its own",
)
