"""Faults in the system calls of what keeps a store in order: moving it, copying it, removing what has ended."""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
from pathlib import Path
from typing import Any

from tests.crash.harness import Hosts
from tests.faults.syscalls import HERE, Fault, Place, Violation, counted, points
from tests.power.histories import Left

from perdure.upkeep.moving import checked

SCRIPT = HERE / "workflows" / "upkeep.py"
MODES = ("move", "backup", "collect")
RUNS = {"r0", "r1", "r2", "waits"}


class Upkeep:
    """Trials of one command, each on a copy of a prepared store."""

    def __init__(self, hosts: Hosts, directory: Path, mode: str) -> None:
        self._hosts = hosts
        self._directory = directory
        self._mode = mode
        self._numbers = itertools.count()
        self._prepared = directory / "prepared"
        ended = Place(hosts, self._prepared, script=SCRIPT).run("prepare")
        assert ended.answer == {"value": "prepare"}, (ended.answer, ended.errors)
        self.points = points(counted(self._copy(), mode))
        """Every fault that the calls of the undisturbed command allow."""

    def trial(self, dice: random.Random) -> str:
        """A random fault; how the faulty process ended."""
        return f"{self._mode}, {self.strike(dice.choice(self.points))}"

    def strike(self, fault: Fault) -> str:
        """One process with that fault, and the same command again. How the first ended.

        Raises:
            Violation: a promise was not kept.
        """
        place = self._copy()
        first = place.run(self._mode, fault.arguments())
        where = f"{self._mode}: {fault} in {place.directory}"
        how = "killed" if first.code == -9 else _kind(first.answer)
        if how not in ("killed", "ended") and "PerdureError" not in first.answer["error"]:
            raise Violation(f"{where}: an error that is none of perdure's: {first.answer}\n{first.errors}")
        again = place.run(self._mode)
        # A copy that is whole already is kept.
        whole = self._mode == "backup" and how != "StoreUnavailableError" and (place.directory / "copy.db").exists()
        if again.answer != {"value": self._mode} and not whole:
            raise Violation(f"{where}: the same command again ends with {again.answer}\n{again.errors}")
        try:
            self._check(place.directory, where)
        except AssertionError as error:
            raise Violation(f"{where}, ended first with {first.answer}: {error}") from None
        shutil.rmtree(place.directory)
        return how

    def _copy(self) -> Place:
        directory = self._directory / f"{self._mode}{next(self._numbers)}"
        shutil.copytree(self._prepared, directory)
        return Place(self._hosts, directory, script=SCRIPT)

    def _check(self, directory: Path, where: str) -> None:
        files = {"source": directory / ".perdure" / "perdure.db"}
        if self._mode != "collect":
            files["target"] = directory / ("moved.db" if self._mode == "move" else "copy.db")
        for file in files.values():
            problems = checked(str(file)).problems
            assert not problems, f"perdure store check: {problems}"
        for blob in directory.glob("**/sha256/*/*"):
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name, f"blob {blob.name} is not whole"
        source = Left.of(files["source"], directory / ".perdure" / "blobs", where).runs
        if self._mode == "collect":
            assert set(source) == {"waits"}, source
            return
        target = Left.of(files["target"], directory / "moved.db-blobs", where).runs if self._mode == "move" else None
        if target is None:
            assert set(source) == RUNS
            return
        assert set(target) == RUNS, target
        assert {status for status, _ in source.values()} == {"MOVED"}, source


def _kind(answer: Any) -> str:
    if answer is None:
        raise Violation("the faulty process gave no answer")
    return "ended" if "value" in answer else str(answer["error"][0])
