"""Flyte's configuration of a cluster: accepted, and without effect."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Config:
    """The settings of a client of a cluster. perdure reads none of them."""

    platform: Any = field(default_factory=lambda: SimpleNamespace(endpoint=None, insecure=False))
    task: Any = field(default_factory=lambda: SimpleNamespace(org=None, project=None, domain=None))
    image: Any = field(default_factory=lambda: SimpleNamespace(builder=None, image_refs={}))
    local: Any = field(default_factory=lambda: SimpleNamespace(persistence=False))
    source: Path | None = None

    @classmethod
    def auto(cls, config_file: Any = None) -> Config:
        """As `flyte.config.auto`."""
        return auto(config_file)


def get_config_file(c: Any = None) -> Path | None:
    """The file that Flyte would read, if there is one."""
    named = c or os.environ.get("FLYTECTL_CONFIG") or os.environ.get("UCTL_CONFIG")
    usual = (Path("config.yaml"), Path(".flyte/config.yaml"), Path.home() / ".flyte" / "config.yaml")
    return next((place for place in ((Path(named),) if named else usual) if place.is_file()), None)


def auto(config_file: Any = None) -> Config:
    """A configuration; the file is named in it, and not read."""
    return Config(source=get_config_file(config_file))


def set_if_exists(d: dict[str, Any], k: str, val: Any) -> dict[str, Any]:
    """`d`, with the value under the key where there is a value."""
    if val or isinstance(val, bool):
        d[k] = val
    return d


__all__ = ["Config", "auto", "get_config_file", "set_if_exists"]
