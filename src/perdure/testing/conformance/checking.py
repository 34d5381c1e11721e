"""Running the attacks, several histories at a time, and the table of the findings."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .attacks import ATTACKS, Attack, History
from .judging import Violation
from .system import System, Unsupported

PROMISES = {
    "P1": "Recorded once",
    "P2": "At least once",
    "P3": "One driver",
    "P4": "Deterministic under concurrency",
    "P5": "Loud mismatch",
    "P6": "Edit and resume",
    "P7": "Sleep in aggregate",
    "P8": "Time never goes back",
    "P9": "A container outlives the process",
    "P10": "Failure is failure",
    "P11": "No code from data",
}
"""The attacked promises, with the titles of docs/guarantees.md."""


@dataclass
class Finding:
    """The result of the attacks on a promise."""

    promise: str
    verdict: str = "not tried"
    """`held`, `violated`, `not claimed` or `not tried`."""
    attacks: list[str] = field(default_factory=list)
    """The titles of the tried attacks."""
    histories: int = 0
    kills: int = 0
    executed: int = 0
    """Begun executions of steps."""
    violations: list[str] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)
    """Attacks left out, each with the reason."""


@dataclass
class ConformanceReport:
    """The findings of a check."""

    system: str
    seed: int
    seconds: float
    findings: list[Finding]

    @property
    def holds(self) -> bool:
        """Whether no promise was violated."""
        return all(finding.verdict != "violated" for finding in self.findings)

    def data(self) -> dict[str, Any]:
        """The report as values of JSON."""
        findings = [{**vars(finding), "title": PROMISES[finding.promise]} for finding in self.findings]
        return {"system": self.system, "seed": self.seed, "seconds": round(self.seconds, 1), "findings": findings}

    def table(self) -> str:
        """The report as a table of Markdown, with the violations below."""
        rows = [
            "| promise | verdict | attacks | histories | kills | steps |",
            "| --- | --- | --- | ---: | ---: | ---: |",
        ]
        for each in self.findings:
            attacks = "; ".join(each.attacks) or "-"
            title = f"**{each.promise}** {PROMISES[each.promise]}"
            rows.append(f"| {title} | {each.verdict} | {attacks} | {each.histories} | {each.kills} | {each.executed} |")
        untried = [f"not tried: {each.promise}, {text}" for each in self.findings for text in each.untried]
        broken = [f"VIOLATED: {each.promise}: {text}" for each in self.findings for text in each.violations]
        head = f"{self.system}, seed {self.seed}, {self.seconds:.0f} s"
        return "\n".join([head, "", *rows, *([""] if untried or broken else []), *untried, *broken])


def check(
    system: System,
    *,
    promises: Iterable[str] = PROMISES,
    sample: int = 1,
    seed: int = 1,
    jobs: int = 4,
    keep: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> ConformanceReport:
    """Attack the promises of a system.

    Args:
        system: the system under attack.
        promises: the ids of the promises to attack.
        sample: of the moments of an attack, 1 in `sample` is tried.
        seed: decides the random moments, and the choice of a sample.
        jobs: histories at a time.
        keep: a place for the directories of violated histories. Without a place the directories are removed.
        tell: called at the end of each history.
    """
    wanted = set(promises)
    begun = time.monotonic()
    findings = {promise: Finding(promise) for promise in PROMISES if promise in wanted}
    base = Path(tempfile.mkdtemp(prefix="conformance-"))
    try:
        planned = list(_planned(system, findings, sample, seed, base))
        with ThreadPoolExecutor(jobs) as pool:
            for attack, history, untried in pool.map(lambda each: _tried(each[0], each[1], keep), planned):
                _note(findings, attack, history, untried)
                tell(f"{attack.promise} {attack.title} ({history.point}): {untried or len(history.violations)}")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    for finding in findings.values():
        if finding.promise not in system.claims:
            finding.verdict = "not claimed"
        elif finding.violations:
            finding.verdict = "violated"
        elif finding.histories:
            finding.verdict = "held"
    return ConformanceReport(system.name, seed, time.monotonic() - begun, list(findings.values()))


def _planned(
    system: System, findings: dict[str, Finding], sample: int, seed: int, base: Path
) -> Iterator[tuple[Attack, History]]:
    """The histories to try. Attacks without a program or a moment for the system are noted as untried."""
    number = 0
    for attack in ATTACKS:
        finding = findings.get(attack.promise)
        if finding is None or attack.promise not in system.claims:
            continue
        points = attack.points if system.outlives else tuple(point for point in attack.points if point is None)
        if attack.program not in system.programs:
            finding.untried.append(f"{attack.title}: the adapter has no program {attack.program!r}")
        elif not points:
            finding.untried.append(f"{attack.title}: the store ends with its process")
        else:
            for point in _sampled(points, sample, seed + number):
                number += 1
                folder = base / f"{number}-{attack.program}"
                yield attack, History(system, attack.promise, attack.program, point, folder, seed)


def _sampled(points: Sequence[str | None], sample: int, seed: int) -> Sequence[str | None]:
    return points[seed % min(sample, len(points)) :: sample]


def _tried(attack: Attack, history: History, keep: Path | None) -> tuple[Attack, History, str]:
    """Run a history. The text is the reason where the history could not be tried."""
    untried = ""
    with history.stack:
        try:
            attack.run(history)
        except Unsupported as error:
            untried = str(error)
        except TimeoutError as error:
            history.violations.append(Violation(attack.promise, f"hung: {error}"))
        if history.violations and keep is not None:
            shutil.copytree(history.folder, keep / history.folder.name, dirs_exist_ok=True)
    return attack, history, untried


def _note(findings: dict[str, Finding], attack: Attack, history: History, untried: str) -> None:
    finding = findings[attack.promise]
    if untried:
        finding.untried.append(f"{attack.title}: {untried}")
        return
    if attack.title not in finding.attacks:
        finding.attacks.append(attack.title)
    finding.histories += 1
    finding.kills += history.kills
    finding.executed += history.executed
    for violation in history.violations:
        target = findings.get(violation.promise, finding)
        if violation.promise in history.system.claims:
            target.violations.append(f"{history.program}, {history.point}: {violation.text}")
