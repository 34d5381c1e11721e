"""Whether a body has a patch: an edit that changes the future of new runs alone.

- PT1 a body gives one answer for each name, for ever. The first answer is a row (`Result.PATCH`) in front of everything
  that the body records afterwards. Until that row is on disk, nothing is on disk that follows from the answer, so a
  crash loses both.
- PT2 the answer is no where outcomes are left to be delivered, or calls to be made again, that other code has recorded:
  that code had passed the place. Nothing is asked for in the way of a recorded outcome, so the body goes on as under
  the code of that time.
- PT3 no call has to ask for a row of a patch. A call of `patched` may therefore be removed once no run needs it.
"""

from __future__ import annotations

from functools import partial

from ..body.branch import Branch, Call
from ..body.wording import outdated
from ..commit.records import Record
from ..ground.model import Kind, Result
from ..ground.spec import fingerprint
from ..ground.values import ANY
from .driver import Driver


def patched(branch: Branch, name: str) -> bool:
    """Whether the body of the branch has the patch of that name."""
    return branch.body.patch(name, partial(_note, branch, name))


def deprecate(branch: Branch, name: str) -> None:
    """Stop the run if the body of the branch is from before the patch of that name.

    Raises:
        RunStopped: the body is.
    """
    driver: Driver = branch.body.driver
    if not branch.body.patch(name, partial(_note_patched, branch, name)):
        driver.stop(outdated(driver.run.name, name))
        raise driver.stopped_error()


def _note_patched(branch: Branch, name: str, answer: bool) -> None:
    # Other code, which still holds the other way, is to decide again.
    if answer:
        _note(branch, name, answer)


def _note(branch: Branch, name: str, answer: bool) -> None:
    driver: Driver = branch.body.driver
    fp = fingerprint(Kind.PATCH, name, b"")
    # Not a call of the branch: it takes no place there, as other code has recorded without it.
    call = Call(branch.body, branch, Kind.PATCH, name, fp, 0, branch.seq, branch.label, None, None, b"")
    driver.outbox.append(Record(call, Result.PATCH, ANY.encode(answer), driver.worker.clock.wall(), 0))
    driver.worker.flush_lazily(driver)
