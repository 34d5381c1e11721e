"""`run` and `with_runcontext`."""

from __future__ import annotations

from ..api.run import run
from ..api.submitting import with_runcontext

__all__ = ["run", "with_runcontext"]
