"""Files and directories with Flyte's methods."""

from __future__ import annotations

from ..io import Dir, File

__all__ = ["Dir", "File"]
