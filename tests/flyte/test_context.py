"""`flyte.ctx`, `custom_context`, groups, and Flyte's settings of tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.flyte.scripts import Scripts

from perdure.flyte import Backoff, Cache, RetryStrategy, Timeout, Trigger, ctx
from perdure.flyte._settings import VersionParameters, cache_request, retry_strategy, task_timeout
from perdure.flyte._triggers import declared_triggers

CONTEXT = """
@flyte.trace
async def seen() -> dict[str, str]:
    return dict(flyte.ctx().custom_context)

@env.task
def leaf() -> dict[str, str]:
    mark("leaf")
    assert flyte.get_custom_context() == flyte.ctx().custom_context
    return flyte.ctx().custom_context

@env.task
async def main() -> list[dict[str, str]]:
    found = [flyte.ctx().custom_context, await leaf.aio()]
    with flyte.custom_context(a="inner", b="2"):
        found += [await leaf.aio(), await seen()]
    found.append(await leaf.aio())
    return found

if __name__ == "__main__":
    with flyte.custom_context(z="outside"):
        run = flyte.with_runcontext(name="one", custom_context={"a": "1"}).run(main)
    print(run.outputs()[0])
"""
FOUND = [{"a": "1"}, {"a": "1"}, {"a": "inner", "b": "2"}, {"a": "inner", "b": "2"}, {"a": "1"}]


@pytest.mark.parametrize("kill_at", [0, 1, 2, 3])
def test_actions_see_the_values_of_the_run_and_of_the_enclosing_blocks(scripts: Scripts, kill_at: int) -> None:
    """The family: without a kill, and carried on by the same command after a kill in each of the actions."""
    scripts.write(CONTEXT)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py") == f"{FOUND}\n"


def test_a_run_resumed_by_another_command_has_its_values(scripts: Scripts) -> None:
    scripts.write(CONTEXT)
    scripts.run("script.py", kill_at=2)
    scripts.perdure("resume", "one")
    assert scripts.run("script.py") == f"{FOUND}\n"


def test_the_context_names_the_action(scripts: Scripts) -> None:
    scripts.write(
        """
        @env.task(retries=1)
        def leaf() -> str:
            context = flyte.ctx()
            context.data["count"] = context.data.get("count", 0) + 1
            if context.attempt_number == 0:
                raise ValueError("again")
            assert flyte.ctx().data["count"] == context.count == 1
            return f"{context.action.name} {context.action.run_name} {context.attempt_number} {context.mode}"

        @env.task
        async def main() -> list[str]:
            with flyte.group("labelled"):
                group = flyte.ctx().group_data.name
            context = flyte.ctx()
            assert os.path.isdir(context.run_base_dir) and not context.is_in_cluster() and context
            assert context.run_start_time.tzinfo is not None
            return [context.action.name, group, await leaf.aio()]

        if __name__ == "__main__":
            assert not flyte.ctx() and flyte.ctx().action is None
            print(flyte.with_runcontext(name="one").run(main).outputs()[0])
        """
    )
    assert scripts.run("script.py") == "['a0', 'labelled', 'a1 one 1 local']\n"


def test_map_takes_partials_and_gives_exceptions_as_values(scripts: Scripts) -> None:
    """The family: sync and async map, positional and named arguments, too many or too few parameters left."""
    scripts.write(
        """
        from functools import partial

        @env.task
        def add(number: int, base: int, name: str = "n") -> str:
            if number == 2:
                raise ValueError("two")
            return f"{name}{number + base}"

        def shown(results):
            return [getattr(result, "code", result) for result in results]

        @env.task
        def main() -> list[str]:
            found = shown(flyte.map(partial(add, base=10, name="x"), [1, 2, 3]))
            for wrong in (partial(add, base=1), partial(add, number=1, name="x")):
                try:
                    list(flyte.map(wrong, [1]))
                except TypeError as error:
                    found.append(str(error).partition(";")[0].partition(",")[0])
            return found

        @env.task
        async def main_async() -> list[str]:
            return shown([result async for result in flyte.map.aio(partial(add, base=1, name="y"), range(3))])

        if __name__ == "__main__":
            print(flyte.run(main).outputs()[0])
            print(flyte.run(main_async).outputs()[0])
        """
    )
    lines = scripts.run("script.py").splitlines()
    assert lines[0].startswith("['x11', 'ValueError', 'x13', 'a partial function must leave exactly one parameter")
    assert "map gives its items by position" in lines[0]
    assert lines[1] == "['y1', 'y2', 'ValueError']"


def test_settings_become_perdures() -> None:
    backoff = Backoff(base=timedelta(seconds=1), factor=2.0, cap=timedelta(seconds=3))
    strategy = retry_strategy(RetryStrategy(4, backoff))
    assert [strategy.backoff.seconds(failures) for failures in (1, 2, 3)] == [1, 2, 3]
    limits = Timeout(max_runtime=timedelta(minutes=10), max_queued_time=5, deadline=60)
    assert task_timeout(limits) == timedelta(seconds=60)
    assert (task_timeout(Timeout()), task_timeout(0), task_timeout(5)) == (None, None, 5)
    assert not ctx()
    for wrong in (
        lambda: RetryStrategy(-1),
        lambda: Backoff(base=timedelta(0)),
        lambda: Backoff(base=timedelta(seconds=2), cap=timedelta(seconds=1)),
        lambda: Cache("sometimes"),
        lambda: Trigger(""),
    ):
        with pytest.raises(ValueError, match=r"count|base|cap|behavior|name"):
            wrong()


def test_a_cache_policy_makes_the_version() -> None:
    class Fixed:
        def get_version(self, salt: str, params: VersionParameters) -> str:
            return f"fixed{salt}"

    def double(number: int) -> int:
        return 2 * number

    digest = Cache("auto", policies=[Fixed()]).get_version(VersionParameters(double))
    for given, enabled, version in (
        (Cache("override", "v1"), "auto", "v1"),
        (Cache("auto", policies=Fixed()), "auto", digest),
        ("disable", "disable", None),
        ("on", "auto", None),
    ):
        found: Any = cache_request(given, double)
        assert (found.behavior, found.version_override) == (enabled, version)
    assert cache_request(Cache("auto", ignored_inputs="a")).ignored_inputs == ("a",)


def test_a_trigger_that_does_not_fit_the_task_is_said_and_not_in_force(scripts: Scripts) -> None:
    """The family: inputs that the task needs are missing, two triggers share a name, a wrong expression."""
    scripts.write(
        """
        hour = flyte.Trigger("hour", flyte.Cron("0 * * * *"))

        for number, triggers in enumerate([hour, (hour, hour), flyte.Trigger("odd", flyte.Cron("never"))]):
            @env.task(short_name=f"t{number}", triggers=triggers)
            def needs(when: int) -> int:
                return when
            assert needs.triggers == ()

        @env.task(triggers=flyte.Trigger.daily())
        def plain() -> int:
            return 1

        assert [rule.name for rule in plain.triggers] == ["daily"]
        print(flyte.run(plain).outputs()[0])
        """
    )
    process = scripts.start("perdure.flyte", "script.py")
    out, err = process.communicate()
    assert (process.returncode, out) == (0, "1\n")
    assert err.count("is not in force") == 3


def test_triggers_become_schedules() -> None:
    hourly = Trigger.hourly("when", inputs={"n": 1}, queue="gpu")
    (found,) = declared_triggers(hourly)
    assert (found.name, found.automation.expression, set(found.inputs)) == ("hourly", "0 * * * *", {"when", "n"})
    assert declared_triggers((Trigger("named"), ())) == ()
