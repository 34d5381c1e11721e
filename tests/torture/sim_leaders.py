"""Several runs on one writer: threads and event loops that commit records, under the scheduler of the simulation.

Each thread belongs to a run. It commits records as a thread does (`through`), as the loop of a lone body does
(`commit_now`), or as a loop that must never block (`mark_ready`, `flush`). Threads change places at locks
and at lines of the writer, and a commit takes a while. At the end every record is in one commit, and no record is left.
"""

from __future__ import annotations

import os
from typing import Any

from proof.generators import Violation

import perdure.core.commit as commit
from perdure.core.commit.writer import Leaders

from .sim import BINDINGS, Report, in_child
from .sim_threads import Choices, Process, Scheduler

WRITER = (os.path.join(os.path.dirname(commit.__file__), ""),)


class Record:
    """What waits in an outbox."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = False
        self.error: Exception | None = None


class Run:
    """A run, as far as the leaders look at it."""

    def __init__(self) -> None:
        self.outbox: list[Record] = []
        self.asked: list[Record] = []
        """All records, in the order in which they entered the outbox."""
        self.committed: list[int] = []


class Committing(Leaders):
    """Leaders whose commits take virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._leads = False

    def commit_alone(self, driver: Any) -> bool:
        if self._scheduler.choices.chance() < 0.5:
            return False
        self._commit([(driver, [driver.outbox.pop(0)])])
        return True

    def drain(self) -> None:
        taken = []
        for driver in self.cut_ready():
            records = list(driver.outbox)
            del driver.outbox[: len(records)]
            taken.append((driver, records))
        self._commit(taken)

    def _commit(self, taken: list[tuple[Any, list[Record]]]) -> None:
        if self._leads:
            raise Violation("W1 two leaders commit at one time")
        self._leads = True
        self._scheduler.sleep(self._scheduler.choices.between(0.0, 0.001))
        for driver, records in taken:
            for record in records:
                record.done = True
                driver.committed.append(record.number)
        self._leads = False


class Simulated:
    """One history."""

    def __init__(self, seed: int) -> None:
        self.choices = Choices(seed)
        self.report = Report(seed)
        lines = 0.05 if self.choices.chance() < 0.5 else 0.0
        self.scheduler = Scheduler(self.choices, restless=0.3, lines=lines, under=WRITER)

    def run(self) -> Report:
        self.scheduler.take_over(BINDINGS, self.report.seed)
        self.writer = Committing(self.scheduler)
        self.runs = [Run() for _ in range(1 + self.choices.among(3))]
        self.left = 0
        process = Process(1)
        for run in self.runs:
            for _ in range(1 + self.choices.among(2)):
                self.left += 1
                self.scheduler.start_in(process, "thread", lambda run=run: self._work(run))
        self.scheduler.sleep(60)
        self._judge()
        return self.report

    def _work(self, run: Run) -> None:
        try:
            for _ in range(1 + self.choices.among(3)):
                self.scheduler.sleep(self.choices.between(0.0, 0.002))
                self._act(run)
        except Violation as error:
            self.report.violations.append(str(error))
        self.left -= 1

    def _act(self, run: Run) -> None:
        record, way = Record(len(run.asked)), self.choices.among(3)
        writer: Any = self.writer
        if way == 2 and (run.outbox or not self._commits_now(run, record)):
            way = 1
        if way == 0:
            run.asked.append(record)
            run.outbox.append(record)
            writer.through(run, record)
            if not record.done:
                raise Violation("W2 a thread goes on before its record is on disk")
        elif way == 1:
            run.asked.append(record)
            run.outbox.append(record)
            writer.mark_ready(run)
            writer.flush()

    def _commits_now(self, run: Run, record: Record) -> bool:
        writer: Any = self.writer
        run.asked.append(record)
        if writer.commit_now(run, record):
            return True
        run.asked.remove(record)
        return False

    def _judge(self) -> None:
        wrong = self.report.violations
        if self.left:
            wrong.append(f"W3 {self.left} threads wait for ever")
        for run in self.runs:
            if left := [record.number for record in run.asked if not record.done]:
                wrong.append(f"W3 records {left} are left behind")
            elif sorted(run.committed) != sorted(record.number for record in run.asked):
                wrong.append(f"W4 committed {run.committed}")


def history(seed: int) -> None:
    """Some runs on one writer.

    Raises:
        Violation: W1 to W4 are not kept.
    """
    report = in_child(seed, lambda: Simulated(seed).run())
    if report.violations:
        raise Violation(report.violations[0])
