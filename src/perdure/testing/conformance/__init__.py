"""The conformance kit: attacks on the promises P1 to P11, with real processes and real kills (SIGKILL).

`python -m perdure.testing.conformance URL` attacks a store of perdure. `check` attacks any system through an adapter of
a few methods, a `System`. Every attack runs a small program in child processes, kills and restarts the processes, and
judges the log of the executed steps, never the store of the system.
"""

from __future__ import annotations

from .attacks import ATTACKS, Attack
from .checking import PROMISES, ConformanceReport, Finding, check
from .own import PerdureSystem
from .system import Live, ProcessTrial, System, Trial, TrialLine, Unsupported

__all__ = [
    "ATTACKS",
    "PROMISES",
    "Attack",
    "ConformanceReport",
    "Finding",
    "Live",
    "PerdureSystem",
    "ProcessTrial",
    "System",
    "Trial",
    "TrialLine",
    "Unsupported",
    "check",
]
