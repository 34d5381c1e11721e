"""Flyte"s configuration."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.config",
    ("Config", "auto", "get_config_file", "set_if_exists"),
    "there is no cluster to configure",
)
