"""PT1, PT2, PT3: the code gets a patch between crash and resume. A run that had gone past the place of the patch goes
on the old way, every other run goes the new way, and neither ever changes its mind.

Family: where a body asks `perdure.patched`. First of all, between two calls, in front of a sleep under way, behind the
last outcome, twice, in each turn of a loop, in a branch of a gather, in a child, in a sync body, in threads of
a body, in an environment with `strict=True`.
"""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.crash.harness import SAMPLE, Broken, Hosts, Lab, check, replay_all, run_parallel
from tests.crash.test_edited_code import body, perdure, write


class Edit(NamedTuple):
    before: str
    after: str
    old: list[str]
    new: list[str]
    behind: frozenset[str]
    """The steps behind the place: where one of them is recorded, the run has passed the place."""
    ahead: frozenset[str] = frozenset()
    """Where nothing but these is recorded, the run has not passed the place."""
    sleeps: bool = False
    """A sleep under way has been called behind the place."""


def edit(
    before: list[str],
    after: list[str],
    old: list[str],
    new: list[str],
    behind: str,
    ahead: str = "",
    *,
    sleeps: bool = False,
    colour: str = "async def",
) -> Edit:
    scripts = [body("import perdure", *lines, colour=colour) for lines in (before, after)]
    return Edit(*scripts, old, new, frozenset(behind.split()), frozenset(ahead.split()), sleeps)


CASES = {
    "between two calls": edit(
        ["return [await step('a'), await step('b'), await step('c')]"],
        ["x = await step('a')", "return [x, await step('n' if perdure.patched('p') else 'b'), await step('c')]"],
        ["a", "b", "c"], ["a", "n", "c"], "b c", "a",
    ),
    "first of all": edit(
        ["return [await step('a'), await step('b')]"],
        ["new = perdure.patched('p')", "return [await step('m' if new else 'a'), await step('n' if new else 'b')]"],
        ["a", "b"], ["m", "n"], "a b",
    ),
    "behind the last outcome": edit(
        ["return [await step('a')]"],
        ["x = await step('a')", "return [x, await step('n')] if perdure.patched('p') else [x]"],
        ["a"], ["a", "n"], "", "a",
    ),
    "twice, and the first answer counts": edit(
        ["return [await step('a'), await step('b'), await step('c')]"],
        ["one = perdure.patched('p')", "x = await step('a')", "y = await step('n' if one else 'b')",
         "return [x, y, await step('o' if perdure.patched('p') else 'c')]"],
        ["a", "b", "c"], ["a", "n", "o"], "a b c",
    ),
    "in front of a sleep": edit(
        ["x = await step('a')", "await durable_sleep.aio(0.05)", "return [x, await step('b')]"],
        ["x = await step('a')", "new = perdure.patched('p')", "if new: x = await step('n')",
         "await durable_sleep.aio(0.05)", "return [x, await step('b')]"],
        ["a", "b"], ["n", "b"], "b", "a", sleeps=True,
    ),
    "in each turn of a loop": edit(
        ["return [await step(f'a{n}') for n in range(3)]"],
        ["return [await step(f'n{n}' if perdure.patched('p') else f'a{n}') for n in range(3)]"],
        ["a0", "a1", "a2"], ["n0", "n1", "n2"], "a0 a1 a2",
    ),
    "in front of a gather": edit(
        ["return [*await asyncio.gather(step('a'), step('b')), await step('c')]"],
        ["new = perdure.patched('p')", "if new: await step('n')",
         "return [*await asyncio.gather(step('a'), step('b')), await step('m' if new else 'c')]"],
        ["a", "b", "c"], ["a", "b", "m"], "a b c",
    ),
    "in a branch": edit(
        ["async def line(w: str) -> str:", "    return await step(w + '1') + await step(w + '2')",
         "return list(await asyncio.gather(line('a'), line('b')))"],
        ["async def line(w: str) -> str:", "    x = await step(w + '1')",
         "    return x + await step(w + ('n' if w == 'b' and perdure.patched('p') else '2'))",
         "return list(await asyncio.gather(line('a'), line('b')))"],
        ["a1a2", "b1b2"], ["a1a2", "b1bn"], "b2", "b1",
    ),
    "a sync body": edit(
        ["return [sync_step('a'), sync_step('b'), sync_step('c')]"],
        ["x = sync_step('a')", "return [x, sync_step('n' if perdure.patched('p') else 'b'), sync_step('c')]"],
        ["a", "b", "c"], ["a", "n", "c"], "b c", "a", colour="def",
    ),
    "a sync body that sleeps": edit(
        ["x = sync_step('a')", "durable_sleep(0.05)", "return [x, sync_step('b')]"],
        ["x = sync_step('a')", "if perdure.patched('p'): x = sync_step('n')", "durable_sleep(0.05)",
         "return [x, sync_step('b')]"],
        ["a", "b"], ["n", "b"], "b", "a", sleeps=True, colour="def",
    ),
    "threads": edit(
        ["def line(w: str) -> str:", "    return sync_step(w + '1') + sync_step(w + '2')",
         "return list(await asyncio.gather(*(asyncio.to_thread(line, w) for w in 'ab')))"],
        ["new = perdure.patched('p')", "def line(w: str) -> str:",
         "    assert perdure.patched('p') is new",
         "    return sync_step(w + '1') + sync_step(w + ('n' if perdure.patched('p') else '2'))",
         "return list(await asyncio.gather(*(asyncio.to_thread(line, w) for w in 'ab')))"],
        ["a1a2", "b1b2"], ["a1an", "b1bn"], "a1 b1 a2 b2",
    ),
}  # fmt: skip
CASES["strict"] = CASES["between two calls"]._replace(
    before=CASES["between two calls"].before.replace("@env.task", "env.strict = True\n@env.task", 1),
    after=CASES["between two calls"].after.replace("@env.task", "env.strict = True\n@env.task", 1),
)
CASES["another process"] = CASES["between two calls"]


def patched_after(hosts: Hosts, place: Path, name: str, kill_at: str, again: str | None) -> list[str]:
    """Kill at one write of the old code, go on under the patched code, killed again at each write if `again`; then
    under the patched code with another edit."""
    case = CASES[name]
    env = {"LAB_EXECUTOR": "process"} if name == "another process" else None
    directory = place / f"{kill_at}-{again}".replace(":", "")
    lab = Lab(hosts, directory, directory / "flow.py", "flow", env=env)
    write(lab, case.before)
    if not lab.start(kill_at=kill_at).killed or lab.run_row().get("status") != "RUNNING":
        return []
    recorded = lab.trials[-1].recorded
    asleep = case.sleeps and bool(lab.query("SELECT 1 FROM actions WHERE kind = 3"))
    write(lab, case.after)
    if again is not None:
        for number in range(60):
            if not lab.start(kill_at=again).killed:
                break
            # An edit that changes nothing: other code than the one that has answered.
            write(lab, case.after + f"\nTURN = {number}\n")
    else:
        lab.start()
    check(lab, 1)
    answer = lab.trials[-1].answer
    expected = {"old": {"value": case.old}, "new": {"value": case.new}}
    if answer not in expected.values():
        raise Broken(f"{answer} is neither the old way nor the new\n{lab.story()}")
    if (recorded & case.behind or asleep) and answer != expected["old"]:
        raise Broken(f"the run had passed the place, and went the new way\n{lab.story()}")
    if recorded <= case.ahead and not asleep and answer != expected["new"]:
        raise Broken(f"the run had not passed the place, and went the old way\n{lab.story()}")
    assert answer is not None
    if name != "threads":  # changed code gives up the order of their outcomes, and writes that down
        write(lab, case.after + "\nLAST = 1\n")
        replay_all(lab, answer["value"])
    return [next(way for way, value in expected.items() if value == answer)]


@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_the_way_it_had_taken_when_the_patch_came(hosts: Hosts, place: Path, name: str) -> None:
    """PT1, PT2, P1, P4: the old code is killed at each write, the patched code undisturbed or killed at every write."""
    points = [f"{number}:after" for number in range(1, 9 if SAMPLE == 1 else 6)]
    # Each edit gives up the order of the outcomes of threads, and two writes take no such run any further.
    agains = (None,) if name == "threads" else (None, "2:after")
    jobs = [partial(patched_after, hosts, place, name, point, again) for point in points for again in agains]
    ways = set(itertools.chain.from_iterable(run_parallel(jobs)))
    assert ways == ({"new"} if name == "behind the last outcome" else {"old", "new"})


def test_a_new_run_that_is_killed_anywhere_goes_the_new_way(hosts: Hosts, place: Path) -> None:
    """PT2: the patch is older than the run. An outcome of another branch is on disk when the answer is not: that must
    not look as if the run had passed the place before the patch was there."""
    script = body(
        "import perdure",
        "async def line(w: str) -> str:",
        "    for n in range(4):",
        "        x = await step(f'{w}{n}')",
        "    return x",
        "async def asks() -> str:",
        "    await step('b')",
        "    return await step('new' if perdure.patched('p') else 'old')",
        "return list(await asyncio.gather(line('a'), asks(), line('c')))",
    )
    for when in ("before", "after"):
        for number in range(2, 12 if SAMPLE == 1 else 8):
            lab = Lab(hosts, place / f"{when}{number}", place / f"{when}{number}" / "flow.py", "flow")
            write(lab, script)
            lab.start(kill_at=f"{number}:{when}")
            lab.start()
            check(lab)
            assert lab.trials[-1].answer == {"value": ["a3", "new", "c3"]}, lab.story()


DEPRECATED = ["x = await step('a')", "perdure.deprecate('p')", "return [x, await step('n'), await step('c')]"]


def test_a_deprecated_patch_stops_old_runs_and_only_these(hosts: Hosts, place: Path) -> None:
    """PT3. Patched, then deprecated, then gone: a run of each age, killed behind the place."""
    case = CASES["between two calls"]
    ages = {"old": case.before, "patched": case.after, "deprecated": body("import perdure", *DEPRECATED)}
    last = body("return [await step('a'), await step('n'), await step('c')]")
    for age, script in ages.items():
        lab = Lab(hosts, place / age, place / age / "flow.py", "flow")
        write(lab, script)
        assert lab.start(kill_at="3:after").killed
        assert lab.trials[-1].recorded >= {"a", "b" if age == "old" else "n"}, lab.story()
        write(lab, ages["deprecated"] + "\nOTHER = 1\n")
        done = perdure(lab, "rehearse", "flow.py", "--status", "INTERRUPTED,RUNNING")
        if age == "old":
            assert done.returncode == 1, done.stdout
            assert "stops: run r" in done.stdout, done.stdout
            assert "the way from before the patch 'p'" in done.stdout
            stopped = lab.start()
            assert "NonDeterminismError" in str(stopped.answer), lab.story()
            write(lab, case.after)
            assert lab.start().answer == {"value": case.old}, lab.story()
            continue
        assert done.returncode == 0, done.stdout + done.stderr
        assert lab.start(kill_at="2:after").code in (0, -9)
        write(lab, last)
        assert lab.start().answer == {"value": case.new}, lab.story()
        check(lab)
