"""P5: where the source is unchanged and the body asks for something else than what is recorded, driving stops with
`NonDeterminismError` that shows both, before any new effect; the run stays interrupted, and ends well under the code
(here: the environment) that fits it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import WORKFLOWS, Broken, Hosts, Lab, Trial, check, recorded_steps
from tests.waiting import wait_for

SCRIPT = WORKFLOWS / "choices.py"
X, Y = {"CHOICE": "x"}, {"CHOICE": "y"}

# What is recorded when the kill comes (the commit), what the message must name as expected and as received.
CASES: dict[str, tuple[str, str, str]] = {
    "another_call": ("3:after", "'b'", "'c'"),
    "other_arguments": ("3:after", "0.001", "0.002"),
    "a_step_left_out": ("4:after", "'b'", "'d'"),
    "a_step_put_in": ("4:after", "'b'", "'new'"),
    "other_order": ("4:after", "'b'", "'d'"),
    "in_a_sync_body": ("3:after", "'b'", "'c'"),
    "the_body_ends_early": ("4:after", "'b'", "end of the body"),
    "the_body_fails_early": ("4:after", "'b'", "end of the body"),
    "a_sync_body_ends_early": ("4:after", "'b'", "end of the body"),
    "waits_for_something_else": ("4:after", "'b'", "nothing more"),
    "in_a_branch": ("4:after", "2'", "3'"),
    "another_branch": ("4:after", "b", ""),
    "another_kind": ("4:after", "durable.uuid4", "durable.random"),
    "no_sleep": ("5:after", "durable_sleep", "'d'"),
    "in_a_child": ("5:after", "'k2'", "'k3'"),
    "child_not_called": ("4:after", "lab.child", ""),
    "child_beside_not_called": ("4:after", "lab.child", ""),
    "another_child_input": ("4:after", "lab.child", ""),
    "caught_as_any_exception": ("3:after", "'b'", "'c'"),
}


def sides(answer: Any) -> tuple[str, str]:
    """What the message shows as expected and as received."""
    lines = answer["text"].splitlines()
    found = [next(line for line in lines if line.strip().startswith(word)) for word in ("expected:", "received:")]
    return found[0], found[1]


@pytest.mark.parametrize("name", CASES)
def test_a_mismatch_stops_the_run_before_any_new_effect(hosts: Hosts, place: Path, name: str) -> None:
    """P5, B3."""
    kill_at, expected, received = CASES[name]
    lab = Lab(hosts, place / name, SCRIPT, name, X)
    assert lab.start(kill_at=kill_at).killed, lab.story()
    before = lab.journal()
    for _ in range(2):
        wrong = lab.start(env=Y)
        if wrong.hung or not wrong.answer or wrong.answer.get("error") != "NonDeterminismError":
            raise Broken(f"no NonDeterminismError but {wrong.answer}\n{lab.story()}")
        shown = sides(wrong.answer)
        assert expected in shown[0], wrong.answer["text"]
        assert received in shown[1], wrong.answer["text"]
        if wrong.executed():
            raise Broken(f"P5: there was a new effect: {wrong.executed()}\n{lab.story()}")
        assert lab.journal() == before, lab.story()
        assert lab.status() == "INTERRUPTED", lab.story()
    right = lab.start(env=X)
    check(lab)
    assert right.answer is not None, lab.story()
    assert "value" in right.answer, lab.story()
    alone = Lab(hosts, place / f"{name}-undisturbed", SCRIPT, name, X)
    assert alone.start().answer == right.answer


# A finished child is not entered again, so a change of its code has no effect.
@pytest.mark.parametrize("name", [name for name in CASES if name != "in_a_child"])
def test_a_finished_journal_replayed_under_other_code_is_a_mismatch(hosts: Hosts, place: Path, name: str) -> None:
    """P5: the same with the whole journal, of a run whose last moment alone is missing."""
    lab = Lab(hosts, place / name, SCRIPT, name, X)
    value = lab.start().answer
    lab.reopen()
    before = lab.journal()
    wrong = lab.start(env=Y)
    if wrong.hung or not wrong.answer or wrong.answer.get("error") != "NonDeterminismError":
        raise Broken(f"no NonDeterminismError but {wrong.answer}\n{lab.story()}")
    assert not wrong.executed(), lab.story()
    assert lab.journal() == before, lab.story()
    assert lab.start(env=X).answer == value, lab.story()


def accepting(lab: Lab) -> subprocess.Popen[str]:
    """`perdure resume --accept` of the lab's run, under the other code."""
    command = [sys.executable, "-m", "perdure", "resume", "r", "--accept", "--json", "--file", str(SCRIPT)]
    env = {**os.environ, **lab.env, **Y, "LAB_LOG": str(lab.log_file)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=lab.directory, env=env, stdout=pipe, stderr=pipe, text=True)


def end_of(trial: Trial) -> Any:
    """The value of that process's run, or `None` for a failure."""
    return (trial.answer or {}).get("value")


# One body waits for ever under the other code, undisturbed as well.
@pytest.mark.parametrize("name", [name for name in CASES if name != "waits_for_something_else"])
def test_an_accepted_difference_follows_the_code_and_keeps_what_is_asked_for(
    hosts: Hosts, place: Path, name: str
) -> None:
    """P5, P1. `resume --accept` ends each run of the family as an undisturbed run of the same code ends, and executes
    no step whose recorded outcome that code asks for."""
    lab = Lab(hosts, place / name, SCRIPT, name, X)
    first = lab.start(kill_at=CASES[name][0])
    assert first.killed, lab.story()
    alone = Lab(hosts, place / f"{name}-undisturbed", SCRIPT, name, Y)
    wanted = alone.start()
    process = accepting(lab)
    out, err = process.communicate(timeout=60)
    assert out, err
    told = json.loads(out)
    assert told.get("result") == end_of(wanted), err
    assert (told["status"] == "SUCCEEDED") == (end_of(wanted) is not None), err
    assert "NonDeterminismError" not in err
    asked_again = {"b"} if name == "other_arguments" else set()
    begun = [line.fields[0] for line in lab._new_lines() if line.kind == "executed"]
    assert not (set(begun) & first.recorded) - asked_again, (begun, first.recorded, err)


def test_an_accepted_difference_is_recorded_so_that_the_next_process_needs_no_option(hosts: Hosts, place: Path) -> None:
    """P5, P4: killed behind the difference, the run goes on from there by itself under the other code."""
    lab = Lab(hosts, place / "x", SCRIPT, "a_sleep_behind", X)
    assert lab.start(kill_at="3:after").killed, lab.story()
    process = accepting(lab)
    wait_for(lambda: "c" in recorded_steps(lab.journal()))
    process.kill()
    process.wait()
    told = lab.start(env=Y)
    assert told.answer == {"value": ["a", "c", "d"]}, lab.story()
