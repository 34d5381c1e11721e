"""The plugin as a user has it: test files of a project, run by pytest in processes of their own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PROJECT = Path(__file__).parents[2]
SHOP = """
import perdure
from perdure import durable

env = perdure.TaskEnvironment("shop")


@perdure.trace
async def charge(amount: int, currency: str = "EUR") -> str:
    raise RuntimeError("the real bank was called")


@perdure.trace
def stock(article: str) -> int:
    raise RuntimeError("the real stock was asked")


@perdure.trace
async def words(text: str):
    raise RuntimeError("the real model was asked")
    yield ""


@env.task(retries=2)
async def pack(article: str) -> str:
    raise RuntimeError("really packed")


@env.task(retries=1)
async def order(article: str, amount: int) -> str:
    left = await stock.aio(article)
    paid = await charge(amount)
    said = [word async for word in words(article)]
    await durable.sleep.aio(30 * 86_400)
    return f"{left} {paid} {await pack(article)} {' '.join(said)}"


@env.task
def approved() -> bool:
    return perdure.new_condition("ok", prompt="?", data_type=bool).wait()
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(shop=SHOP)
    return pytester


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    slow = ("-p", "no:hypothesispytest", "-p", "no:anyio")
    return pytester.runpytest_subprocess("-p", "no:perdure", "-p", "perdure.testing.plugin", *slow, *args)


def test_pytest_finds_the_plugin_by_itself() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert settings["project"]["entry-points"]["pytest11"] == {"perdure": "perdure.testing.plugin"}


@pytest.mark.parametrize("args", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_each_test_has_a_store_of_its_own(project: pytest.Pytester, args: list[str]) -> None:
    project.makepyfile(
        """
        import perdure
        import pytest
        from shop import approved, order, pack
        from perdure.testing import fake

        @pytest.mark.parametrize("n", range(6))
        def test_one_name_in_many_stores(perdure_store, n):
            assert len(perdure.runs()) == 0
            with fake(pack, returns=str(n)):
                assert perdure.with_runcontext(name="same").run(pack, "x").result == str(n)

        def test_a_run_that_waits_is_left_behind(perdure_worker):
            perdure_worker(approved)
            run = perdure.submit(approved)

        def test_a_signal_from_a_test(perdure_worker, virtual_time):
            perdure_worker(approved, concurrency=2)
            run = perdure.submit(approved)
            virtual_time.advance(days=3)
            assert run.status == "WAITING"
            run.signal("ok", True)
            assert run.wait().result is True

        def test_the_settings_come_back(tmp_path):
            from perdure import runtime
            assert runtime.process().settings.store is None
        """
    )
    run(project, *args).assert_outcomes(passed=9)


def test_fakes_stand_in_for_tasks_traces_and_generators(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import perdure
        import pytest
        from shop import charge, order, pack, stock, words
        from perdure.testing import fake

        def test_a_month(virtual_time):
            with (
                fake(stock, returns=3) as stocked, fake(charge, returns="paid") as charged,
                fake(pack, calls=lambda article: f"packed {article}") as packed,
                fake(words, returns=["a", "b"]) as said,
            ):
                run = perdure.run(order, "chair", 40)
                assert run.result == "3 paid packed chair a b"
                assert charged.calls[0].arguments == {"amount": 40, "currency": "EUR"}
                assert [call.args for call in stocked.calls] == [("chair",)]
                assert len(packed.calls) == len(said.calls) == 1
            with pytest.raises(RuntimeError, match="really packed"):
                perdure.run(pack, "chair")

        def test_a_fake_that_fails_is_tried_again(perdure_store):
            with fake(pack, raises=OSError("no box")) as packed:
                with pytest.raises(OSError, match="no box"):
                    perdure.run(pack, "chair")
            assert len(packed.calls) == 3

        def test_a_fake_that_calls_a_coroutine(perdure_store):
            async def slowly(article):
                return article * 2
            with fake(pack, calls=slowly):
                assert perdure.run(pack, "ab").result == "abab"

        def test_outside_of_a_run(perdure_store):
            with fake(stock, returns=7) as stocked:
                assert stock("x") == 7
            assert stocked.called

        def test_a_value_of_another_type_is_refused(perdure_store):
            with fake(pack, returns=[1]), pytest.raises(perdure.errors.UsageError):
                perdure.run(pack, "chair")

        def test_mistakes(perdure_store):
            with pytest.raises(perdure.errors.UsageError, match="exactly one"):
                fake(pack)
            with pytest.raises(perdure.errors.UsageError, match="exactly one"):
                fake(pack, returns=1, raises=OSError)
            with pytest.raises(perdure.errors.UsageError, match="takes a task"):
                fake(len, returns=1)
            env = perdure.TaskEnvironment("elsewhere", executor="process")
            with pytest.raises(perdure.errors.UsageError, match="another process"):
                fake(env.task(len_of), returns=1)

        def len_of(text: str) -> int:
            return len(text)
        """
    )
    run(project).assert_outcomes(passed=6)


def test_a_container_task_is_replaced_as_well(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import perdure
        from perdure.extras import ContainerTask
        from perdure.testing import fake

        tool = ContainerTask(
            name="tool", image="none", inputs={"x": int}, outputs={"y": int}, command=["false"],
        )
        env = perdure.TaskEnvironment("uses", depends_on=[])

        @env.task
        async def uses_it(x: int) -> int:
            return await tool(x=x)

        def test_it(perdure_store):
            with fake(tool, returns=5) as called:
                assert perdure.run(uses_it, 4).result == 5
            assert called.calls[0].arguments == {"x": 4}
        """
    )
    run(project).assert_outcomes(passed=1)


@pytest.mark.parametrize("args", [[], ["-n", "2"]], ids=["one process", "two processes"])
def test_a_failed_test_shows_the_trees_of_its_runs(project: pytest.Pytester, args: list[str]) -> None:
    project.makepyfile(
        """
        import perdure
        from shop import charge, order, pack, stock, words
        from perdure.testing import fake

        def test_it(virtual_time):
            with fake(stock, returns=3), fake(charge, returns="paid"), fake(words, returns=["a"]):
                with fake(pack, returns="packed"):
                    assert perdure.run(order, "chair", 40).result == "nothing"
        """
    )
    result = run(project, *args)
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [".*perdure runs.*", r"run \S+: shop.order, SUCCEEDED", ".*trace charge.*'paid'", ".*shop.pack.*'packed'"]
    )


def test_without_perdure_in_a_test_nothing_of_perdure_is_loaded(project: pytest.Pytester) -> None:
    project.makepyfile("import sys\ndef test_it():\n    assert 'perdure.runtime' not in sys.modules")
    run(project).assert_outcomes(passed=1)


READS = """
    import time
    import perdure

    env = perdure.TaskEnvironment(name="reads")

    @perdure.trace
    def allowed() -> float:
        return time.time()

    @env.task
    def main() -> float:
        for _ in range(3):
            time.time()
        return allowed()

    @env.task
    async def main_async() -> float:
        return time.monotonic()

    def test_sync(perdure_worker):
        assert perdure.run(main).result

    def test_async(virtual_time):
        assert perdure.run(main_async).result

    def test_without_a_fixture(tmp_path):
        perdure.init(store=tmp_path / "p.db")
        assert perdure.run(main).result
"""


@pytest.mark.parametrize(("setting", "told"), [("", 2), ("0", 0)])
def test_what_bodies_read_is_warned_about_in_tests(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, setting: str, told: int
) -> None:
    """The family: a read in a sync body, repeated, and in an async one, whose loop's thread may be older than the test;
    a read inside a trace; a test without a fixture of perdure."""
    monkeypatch.setenv("PERDURE_STRICT", setting)
    project.makepyfile(READS)
    result = run(project)
    result.assert_outcomes(passed=3, warnings=told)
    assert result.stdout.str().count("clock: ") == told
