"""The code of a parked run changes until it wakes (P5, P6)."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest
from tests.parking.serving import NAP, Serving, counts, parked, step
from tests.waiting import wait_for

import perdure
from perdure import errors, runtime
from perdure.api.loading import find_task
from perdure.core.process import serving as serving_module
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="edited_code")

fits = True


@env.task
async def may_not_fit() -> str:
    await step("a" if fits else "b")
    await durable_sleep.aio(NAP)
    return await step("end")


@env.task
async def quick() -> str:
    return "done"


def test_code_that_no_longer_fits_is_reported_and_holds_up_no_other_run(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    global fits
    monkeypatch.setattr(serving_module, "FIRST_RETRY", 0.3)
    try:
        with Serving([may_not_fit, quick], clock) as serving:
            run = perdure.submit(may_not_fit)
            wait_for(lambda: parked(run))
            fits = False
            clock.jump(NAP)
            wait_for(lambda: sum(o.run == run.name and o.again is not None for o in serving.outcomes) >= 2)
            assert serving.finish(perdure.submit(quick)) == "done"
            fits = True
            assert serving.finish(run) == "end"
    finally:
        fits = True
    told = [outcome for outcome in serving.outcomes if outcome.run == run.name and outcome.again is not None]
    assert all(isinstance(outcome.error, errors.NonDeterminismError) for outcome in told)
    assert [outcome.again for outcome in told[:2]] == [0.3, 0.6]
    assert (counts["a"], counts["b"], counts["end"]) == (1, 0, 1)


EDITED = """
import asyncio
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="edited")

@perdure.trace
async def mark(text: str) -> str:
    return text

@env.task
async def naps(seconds: float) -> float:
    await durable_sleep.aio(seconds)
    return seconds

@env.task
async def main() -> list:
    first = await mark({first!r})
    found = await asyncio.gather({calls})
    return [first, *found, await mark("end")]
"""


def test_code_that_was_edited_meanwhile_goes_on_and_is_parked_again(tmp_path: Path, clock: VirtualClock) -> None:
    file = tmp_path / "edited.py"

    def serving(first: str, calls: str) -> Serving:
        file.write_text(EDITED.format(first=first, calls=calls))
        sys.modules.pop("edited", None)
        # Another process, as far as the sources are concerned.
        perdure.init(store=tmp_path / "perdure.db")
        return Serving([find_task(str(file), name) for name in ("main", "naps")], clock)

    with serving("one", f"naps({NAP}), naps({10 * NAP})") as before:
        run = perdure.submit(find_task(str(file), "main"))
        wait_for(lambda: parked(run))
    # It is woken by hand, as its first deadline is far away, and calls one child less than are under way.
    with contextlib.closing(sqlite3.connect(runtime.worker().store.path, timeout=10)) as database, database:  # type: ignore[attr-defined]
        database.execute("UPDATE runs SET wake_boot = 0")
    with serving("one", f"naps({NAP})") as after:
        wait_for(lambda: after.parks() == 1)
        assert after.finish(run) == ["one", NAP, "end"]
    assert before.parks() == 1
