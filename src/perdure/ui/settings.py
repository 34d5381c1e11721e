"""What the pages of a server may show and do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..api.task import Task
from .values import Mask


@dataclass(frozen=True)
class UiSettings:
    """What a page may show and do."""

    tasks: Mapping[str, Task[..., Any]]
    """The tasks that can be started, by their full names."""
    mask: Mask
    read_only: bool = False
    token: bool = False
    """Whether browsers need a one-time link."""
