"""What people read about a body: recorded entries, and the error of a mismatch."""

from __future__ import annotations

from ...errors import NonDeterminismError
from ..ground.model import Entry, Kind


def describe(entry: Entry) -> str:
    """A recorded entry for people."""
    from ..ground.values import preview

    shown = preview(entry.inputs, 120) if entry.inputs else ""
    return f"{Kind(entry.kind).name.lower()} {entry.name}({shown}) [entry {entry.n}, call {entry.seq} of its branch]"


def mismatch(run: str, expected: str, received: str, *, strict: bool = False) -> NonDeterminismError:
    """The error of P5, for the run of that name. `strict`: the source may have changed."""
    why = "and its environment is strict" if strict else "although its source has not changed"
    return NonDeterminismError(
        f"The code asks for something else than what this run has recorded, {why}.\n"
        f"  expected: {expected}\n"
        f"  received: {received}\n"
        "Something in the body depends on more than recorded outcomes: a clock, a random number, a set's order, the "
        "environment. Put it under @perdure.trace or use perdure.durable. The run is unharmed and stays interrupted.\n"
        f"Under code that fits, it goes on: perdure resume {run}\n"
        f"Under this code, with the recorded outcomes that are still asked for: perdure resume {run} --accept\n"
        f"As a new run, with the outcomes that succeeded: perdure rerun {run} --recover",
        expected=expected,
        received=received,
    )


def outdated(run: str, patch: str) -> NonDeterminismError:
    """The error of `perdure.deprecate` for a run from before the patch."""
    expected = f"the way from before the patch {patch!r}"
    received = f"{_DEPRECATE}{patch!r})"
    return NonDeterminismError(
        f"Run {run!r} was here before the patch {patch!r}, and the code no longer holds the way that it has gone.\n"
        f"  expected: {expected}\n"
        f"  received: {received}\n"
        "The run is unharmed and stays interrupted.\n"
        f"Under code that asks perdure.patched({patch!r}), it goes on: perdure resume {run}\n"
        f"As a new run, with the outcomes that succeeded: perdure rerun {run} --recover",
        expected=expected,
        received=received,
    )


_DEPRECATE = "perdure.deprecate("


def is_outdated(error: NonDeterminismError) -> bool:
    """Whether the error is that of `perdure.deprecate`."""
    return (error.received or "").startswith(_DEPRECATE)
