"""The static check of workflow code, `perdure check`: places where a body depends on more than recorded outcomes.

    rules      what is looked for, with reason and replacement
    modules    modules of a package as syntax trees: imports, functions, tasks and traces
    finding    walks the bodies of tasks, and the functions that they call
    fixing     replaces what can be replaced safely
    formats    text, JSON, SARIF, and annotations for GitHub

Nothing is imported or executed.
"""

from __future__ import annotations

from .finding import CheckFinding, check
from .fixing import fix
from .rules import RULES, CheckRule

__all__ = ["RULES", "CheckFinding", "CheckRule", "check", "fix"]
