"""`flyte.new_condition`: answered by `perdure signal`, and late with Flyte's error (P12)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure import flyte
from perdure.errors import UsageError

env = flyte.TaskEnvironment(name="asked")


@env.task
async def asks(timeout: float | None = None) -> str:
    condition = await flyte.new_condition.aio("go", prompt="Go on?", data_type=int, timeout=timeout)
    try:
        return f"answer {await condition.wait.aio()}"
    except flyte.errors.ConditionTimedoutError as late:
        return f"{late.code}: {isinstance(late, flyte.errors.RuntimeUserError)}"


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


def test_a_condition_is_answered_by_a_signal() -> None:
    run = perdure.with_runcontext(name="r").submit(asks)
    run.signal("go", 7)
    assert perdure.with_runcontext(name="r").run(asks).result == "answer 7"


def test_a_condition_without_an_answer_raises_the_error_of_flyte() -> None:
    assert perdure.run(asks, 0.01).result == "ConditionTimedoutError: True"


def test_a_webhook_is_refused_with_the_remedy() -> None:
    with pytest.raises(UsageError, match="perdure signal RUN NAME VALUE"):
        flyte.new_condition("go", webhook=flyte.ConditionWebhook("https://example.org"))
