"""A synchronous call that blocks a body's loop, beside threads that hand over what was recorded (B5, D2)."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from perdure.core.body.body import Body


def test_no_outcome_is_handed_over_while_a_body_says_that_it_waits_for_outcomes_again() -> None:
    """B5, D2. Another thread handed over the last recorded outcome between the look and the word, so the run waited for
    ever for a body that had all it had recorded. The family: each word of a body about its replay is said under the
    body's lock."""
    busy: list[bool] = []

    def loop_blocked(body: Body, blocked: bool) -> None:
        if blocked:
            return
        other = threading.Thread(target=lambda: busy.append(not body._lock.acquire(timeout=0.2)))
        other.start()
        other.join()

    driver: Any = SimpleNamespace(
        gate=SimpleNamespace(free=False), loop_blocked=loop_blocked, run=SimpleNamespace(name="r")
    )
    loop: Any = SimpleNamespace(here=lambda: True, soon=lambda *_: None)
    body = Body(driver, 0, "task", loop, floor=0, label=None)
    body.delivery.replay = SimpleNamespace(drained=False)  # type: ignore[assignment]
    body.block_loop()
    body.unblock_loop()
    assert busy == [True]
