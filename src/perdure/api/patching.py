"""`patched` and `deprecate`: an edit of a task that changes the future of new runs alone."""

from __future__ import annotations

from ..core.body.branch import Branch
from ..core.body.scope import TraceScope
from ..core.run import patching
from ..errors import InsideTraceError, UsageError
from ._calling import caller

LONGEST = 200


def patched(name: str, /) -> bool:
    """Whether this run has the patch of that name: `False` for a run that had gone past this place before the patch was
    written, and `True` for every other run.

    The first answer is recorded, and the body of a task gives the same answer for the name ever after: on each replay,
    in later turns of a loop and in all its branches. Each task of a run has an answer of its own. The call takes no
    time, so async code has no other form of it. Outside of a run the answer is `True`.

    Args:
        name: what tells the patch from all others, such as `"2026-12-round-up"`; up to 200 characters.

    Raises:
        UsageError: not a name.
        InsideTraceError: inside a trace, which is recorded as a whole.
    """
    branch = _branch(name, "perdure.patched")
    return True if branch is None else patching.patched(branch, name)


def deprecate(name: str, /) -> None:
    """State that no run is left without the patch of that name, in the place of `patched(name)`.

    A run without the patch stops there with `NonDeterminismError`, unharmed. For all other runs nothing happens.

    Args:
        name: the name of the patch.

    Raises:
        UsageError: not a name.
        InsideTraceError: inside a trace, which is recorded as a whole.
    """
    branch = _branch(name, "perdure.deprecate")
    if branch is not None:
        patching.deprecate(branch, name)


def _branch(name: str, what: str) -> Branch | None:
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST or not name.isprintable():
        raise UsageError(f"{what} takes the name of a patch, text of 1 to {LONGEST} characters, not {name!r}")
    where = caller(lambda: what)
    if isinstance(where, TraceScope):
        raise InsideTraceError(
            f"{what} was called inside trace {where.name}. A trace is recorded as one unit: ask in the task, and give "
            "the answer to the trace as an argument."
        )
    return where
