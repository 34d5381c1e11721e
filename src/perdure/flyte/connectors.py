"""Flyte"s connectors: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.connectors",
    ("AsyncConnector", "ConnectorRegistry"),
    "call the service in a trace",
)
