"""Flyte's web applications: a FastAPI app can be declared, and served on this machine."""

from __future__ import annotations

from typing import Any

from .._absent import absent_names
from . import AppEnvironment


class FastAPIAppEnvironment(AppEnvironment):
    """A FastAPI app, or another ASGI app. uvicorn serves the app on this machine; uvicorn is to be installed."""

    def __init__(self, name: str, depends_on: Any = None, *, app: Any, **settings: Any) -> None:
        super().__init__(name, depends_on, **settings)
        self.app = app


__getattr__ = absent_names(
    "flyte.app.extras",
    ("FastAPIPassthroughAuthMiddleware", "FlyteWebhookAppEnvironment"),
    "perdure serves apps on this machine only, without a control plane",
)

__all__ = ["FastAPIAppEnvironment"]
