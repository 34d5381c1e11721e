"""P1, P2, P8 and the store's own promise after a power cut: what a body or a caller was told of is on disk.

The family: any program, cut off at any moment, where the disk keeps any part of what was not synced. Each program is
recorded once under strace. Then the power is cut behind every system call that changed the disk, several times with
other parts lost, and what is left is judged: the database is whole, each journal verifies, each outcome that was told
of is in the journal with its files, and each submission that was acknowledged is there. For a sample of the cuts, a
new process carries on from what is left.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import Hosts, Lab
from tests.power.disk import Names
from tests.power.histories import PROGRAMS, SCRIPT, SHARES, Histories, Told, cuts, judge, restore
from tests.power.recording import Player, parsed

from perdure.upkeep.moving import checked

WHOLE = os.environ.get("PERDURE_TEST_WHOLE") == "1"
RESTARTED = tuple(program for program in PROGRAMS if program not in ("submissions", "backed_up", "collected"))
"""What carries on where it was cut off. A backup does not: it refuses a file that is there. Nor does a collection: it
removes what has ended."""
AT_ONCE = len(SHARES) if WHOLE else 2
"""How many of the shares are tried at one cut; nothing at all (0.0) is always one of them."""
STRIDES = {} if WHOLE else {"moved": 12, "collected": 6, "backed_up": 4, "parked": 3}
"""Of the cuts of a long history, one in so many is tried."""
RESTARTS = 200 if WHOLE else 8
"""How many cuts of a program are followed by a new process."""


pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to record system calls")


@pytest.fixture(scope="session")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Histories:
    return Histories(tmp_path_factory.mktemp("histories"))


def test_a_descriptor_of_two_threads_is_the_file_that_it_was_opened_for(tmp_path: Path) -> None:
    """The recording itself. The kernel frees a descriptor where `close` begins, so another thread may have its number
    before `close` returns.

    The family: the parts of a `close` in two lines, in one, and not ended at all."""

    def line(thread: int, text: str) -> str:
        return f"{thread} {re.sub('[<](/[^>]*)>', lambda found: f'<{hexed(found[1])}>', text)}"

    def hexed(text: str) -> str:
        return "".join(f"\\x{byte:02x}" for byte in text.encode())

    root, outside = tmp_path / "root", tmp_path / "log"
    for closing, closed in (("<unfinished ...>", "<... close resumed>) = 0"), ("= 0", ""), ("<unfinished ...>", "")):
        lines = [
            line(1, f'openat(AT_FDCWD<{root}>, "{hexed("a")}", O_WRONLY|O_CREAT) = 5<{root}/a>'),
            line(1, f"close(5<{root}/a>) {closing}" if closing.startswith("=") else f"close(5<{root}/a> {closing}"),
            line(2, f'openat(AT_FDCWD<{root}>, "{hexed("b")}", O_WRONLY|O_CREAT) = 5<{root}/b>'),
            *([line(1, closed)] if closed else []),
            line(2, f'write(5<{root}/b>, "{hexed("content")}", 7) = 7'),
        ]
        player = Player(root, outside, Names.ANY)
        for call in parsed("\n".join(lines)):
            player.play(call)
        found = {name: bytes(inode.now) for name, inode in player.disk.names.items() if inode is not None}
        assert found == {"a": b"", "b": b"content"}


@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_was_told_survives_a_power_cut(histories: Histories, tmp_path: Path, program: str, names: Names) -> None:
    """P1, P2, P8. Every cut, with several shares of what was not synced."""
    found = histories.of(program)
    dice, tried = random.Random(program), 0
    for place, (number, disk, outside) in enumerate(cuts(found, names)):
        if place % STRIDES.get(program, 1):
            continue
        for share in (SHARES[0], *dice.sample(SHARES[1:], AT_ONCE - 1)):
            restore(disk.cut(names, random.Random(f"{number} {share}"), share), tmp_path / "left")
            judge(tmp_path / "left", Told.of(outside), f"{program}, cut behind call {number}, share {share}")
            tried += 1
    assert tried > (100 * AT_ONCE if program not in STRIDES else 50)
    told = Told.of(outside)
    assert told.ended or len(told.submitted) == 4 or len(told.copies) == 2


@pytest.mark.parametrize("program", RESTARTED)
def test_a_run_carries_on_after_a_power_cut(hosts: Hosts, histories: Histories, tmp_path: Path, program: str) -> None:
    """P1, P4. What was told of is not executed again, and the run ends as an undisturbed one does."""
    found = histories.of(program)
    dice = random.Random(program)
    moments = [number for number, _, _ in cuts(found, Names.ANY)]
    chosen = {moments[round(place * (len(moments) - 1) / RESTARTS)] for place in range(1, RESTARTS + 1)}
    wanted: Any = None
    for number, disk, outside in cuts(found, Names.ANY):
        if number not in chosen:
            continue
        lab = Lab(hosts, tmp_path / f"again{number}", SCRIPT, program)
        restore(disk.cut(Names.ANY, dice, dice.choice(SHARES)), lab.directory)
        lab.log_file.write_bytes(outside)
        lab._new_lines()
        trial = lab.start()
        assert trial.answer is not None, lab.story()
        again = set(trial.executed()) & Told.of(outside).steps
        assert not again, f"cut behind call {number}: executed again: {sorted(again)}\n{lab.story()}"
        wanted = wanted or trial.answer
        assert trial.answer == wanted, lab.story()
        assert "value" in trial.answer, lab.story()
        assert not checked(str(lab.database)).problems, lab.story()
        lab.remove()
