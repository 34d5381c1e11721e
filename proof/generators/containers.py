"""Container tasks on an engine in memory, whose programs print, write outputs and end by chance.

Programs print their secrets and leave them in outputs and error files. Ends are all exit codes, also behind good
outputs. A task has a value if and only if its program has ended with 0, has reported no error and has left the declared
outputs (P10). At the end no file below the project holds a secret.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import perdure
from perdure.containers import discovery
from perdure.containers.memory import MemoryEngine, Running
from perdure.errors import ContainerError, OutputMissingError, OutputParseError
from perdure.extras import ContainerTask

from . import Violation

FORMS = ("{}", "-{}-", "value={} and more", "{0}{0}")


class Plan:
    """What one program does."""

    def __init__(self, dice: random.Random, secret: str) -> None:
        self.code = dice.choice((0, 0, 0, 1, 2, 126, 137, 255))
        self.outputs = dice.choice(("7", "7", "7", None, f"no number {secret}"))
        self.reports = f"it has failed with {secret}" if dice.random() < 0.15 else None
        self.lines = [dice.choice(FORMS).format(secret) for _ in range(dice.randrange(3))]
        self.lines_behind = dice.random() < 0.5
        self.pauses = dice.randrange(3)

    @property
    def succeeds(self) -> bool:
        """Whether the task has a value."""
        return self.code == 0 and self.reports is None and self.outputs == "7"

    async def run(self, running: Running) -> int:
        """The container's process."""
        for line in self.lines:
            running.out(line)
            running.err(line)
            await asyncio.sleep(0)
        outputs = Path(running.path("/var/outputs"))
        if self.outputs is not None:
            (outputs / "n").write_text(self.outputs)
        if self.reports is not None:
            (outputs / "_ERROR").write_text(self.reports)
        for _ in range(self.pauses):
            await asyncio.sleep(0)
        return self.code


def history(seed: int) -> None:
    """Some container tasks, one after the other.

    Raises:
        Violation: P10, a wrong end, or a stored secret.
    """
    dice = random.Random(seed)
    secret = "S" + dice.randbytes(9).hex()
    os.environ["GENERATED_SECRET"] = secret
    engine: Any = None
    plans: list[Plan] = []

    async def script(running: Running) -> int:
        return await plans[-1].run(running)

    async def connect(*_: object) -> Any:
        nonlocal engine
        engine = engine or MemoryEngine(script)
        return engine

    real = discovery.open_engine
    discovery.open_engine = connect  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory(prefix="perdure-generated-") as folder:
            perdure.init(f"{folder}/perdure.db", durability="process")
            try:
                for number in range(3):
                    plans.append(Plan(dice, secret))
                    _check_end(plans[-1], number)
            finally:
                perdure.init()
            _check_files(Path(folder), secret)
    finally:
        discovery.open_engine = real
        del os.environ["GENERATED_SECRET"]


def _check_end(plan: Plan, number: int) -> None:
    task = ContainerTask(
        name=f"generated{number}", image="image", command=["run"], outputs={"n": int}, local_logs=False,
        secrets=["GENERATED_SECRET"],
    )  # fmt: skip
    try:
        found = perdure.run(task).result
    except ContainerError as error:
        if plan.code == 0 and plan.reports is None:
            raise Violation(f"P10 exit code 0 and good outputs are {error!r}") from error
        if error.exit_code != plan.code:
            raise Violation(f"P10 exit code {plan.code} is reported as {error.exit_code}") from error
    except (OutputMissingError, OutputParseError) as error:
        if plan.succeeds or plan.code or plan.reports:
            raise Violation(f"P10 a program that ended with {plan.code} is reported as {error!r}") from error
    else:
        if not plan.succeeds or found != 7:
            raise Violation(f"P10 exit code {plan.code}, outputs {plan.outputs!r}: the value is {found!r}")


def _check_files(folder: Path, secret: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and (secret.encode() in path.read_bytes()):
            raise Violation(f"P10 {path.relative_to(folder)} holds a secret")
