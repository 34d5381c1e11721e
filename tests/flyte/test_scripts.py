"""SC1 to SC4: a script under `python -m perdure.flyte` that is killed carries on under the same command."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.flyte.scripts import Scripts
from tests.waiting import PATIENCE, wait_for

TWO_RUNS = """
@env.task
async def step(name: str, number: int) -> int:
    mark(f"{name}{number}")
    return number

@env.task
async def main(name: str) -> int:
    return await step(name, 1) + await step(name, 2)

if __name__ == "__main__":
    flyte.init()
    for name in sys.argv[1:]:
        print(name, flyte.run(main, name).outputs()[0])
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


@pytest.mark.parametrize("kill_at", [1, 2, 3, 4])
def test_a_killed_script_executes_no_recorded_step_again(scripts: Scripts, kill_at: int) -> None:
    """The family: a kill before anything is recorded, between two steps, in the second run, in the last step."""
    scripts.write(TWO_RUNS)
    scripts.run("script.py", "a", "b", kill_at=kill_at)
    assert scripts.run("script.py", "a", "b") == "a 3\nb 3\n"
    steps = ["a1", "a2", "b1", "b2"]
    assert scripts.marks() == [*steps[:kill_at], *steps[kill_at - 1 :]]


def test_equal_calls_of_one_script_are_runs_of_their_own(scripts: Scripts) -> None:
    scripts.write(TWO_RUNS)
    scripts.run("script.py", "a", "a", kill_at=3)
    assert scripts.run("script.py", "a", "a") == "a 3\na 3\n"
    assert scripts.marks() == ["a1", "a2", "a1", "a1", "a2"]


def test_a_script_that_ended_begins_new_runs(scripts: Scripts) -> None:
    scripts.write(TWO_RUNS)
    assert scripts.run("script.py", "a") == scripts.run("script.py", "a") == "a 3\n"
    assert scripts.marks() == ["a1", "a2", "a1", "a2"]
    assert not list((scripts.directory / ".perdure" / "scripts").iterdir())


def test_a_script_that_ended_with_an_exception_begins_new_runs(scripts: Scripts) -> None:
    """The family: a failed run, an exception of the script's own after a run, an exit code."""
    for end in ("fail(1)", "raise KeyError('own')", "sys.exit(1)"):
        scripts.write(
            """
            @env.task
            def step() -> int:
                mark("step")
                return 1

            @env.task
            def failing() -> int:
                raise ValueError("no")

            def fail(code):
                flyte.run(failing)

            flyte.run(step)
            """.replace("            flyte.run(step)", f"            flyte.run(step)\n            {end}")
        )
        scripts.run("script.py", code=1)
        scripts.run("script.py", code=1)
        assert scripts.marks() == ["step", "step"]


def test_other_arguments_and_new_begin_new_runs(scripts: Scripts) -> None:
    scripts.write(TWO_RUNS)
    scripts.run("script.py", "a", kill_at=2)
    scripts.run("script.py", "a", "b")
    scripts.run("--new", "script.py", "a")
    assert scripts.marks() == ["a1", "a2", "a1", "a2", "b1", "b2", "a1", "a2"]


def test_an_edited_script_repeats_finished_runs_and_carries_on_with_the_others(scripts: Scripts) -> None:
    scripts.write(TWO_RUNS)
    scripts.run("script.py", "a", "b", kill_at=4)
    scripts.marks()
    scripts.write(TWO_RUNS.replace("return await step(name, 1) +", "return 10 + await step(name, 1) +"))
    assert scripts.run("script.py", "a", "b") == "a 13\nb 13\n"
    assert scripts.marks() == ["a1", "a2", "b2"]


def test_resume_carries_on_with_the_runs_of_a_killed_script(scripts: Scripts) -> None:
    scripts.write(TWO_RUNS)
    scripts.run("script.py", "a", "b", kill_at=2)
    assert "3" in scripts.perdure("resume", "--all")
    assert scripts.run("script.py", "a", "b") == "a 3\nb 3\n"
    assert scripts.marks() == ["a1", "a2", "a2", "b1", "b2"]


def test_a_second_start_meanwhile_has_runs_of_its_own(scripts: Scripts) -> None:
    scripts.write(
        """
        import asyncio

        @env.task
        async def main() -> int:
            mark("main")
            while not os.path.exists("go"):
                await asyncio.sleep(0.05)
            return 1

        print(flyte.run(main).name)
        """
    )
    first, second = scripts.start("perdure.flyte", "script.py"), scripts.start("perdure.flyte", "script.py")
    try:
        wait_for(
            lambda: (scripts.directory / "marks").exists() and len((scripts.directory / "marks").read_text()) == 10
        )
        (scripts.directory / "go").touch()
        names = {process.communicate(timeout=PATIENCE)[0] for process in (first, second)}
    finally:
        first.kill()
        second.kill()
    assert len(names) == 2


def test_ctrl_c_leaves_the_run_to_the_same_command(scripts: Scripts) -> None:
    scripts.write(
        """
        import asyncio

        @env.task
        async def step() -> int:
            mark("step")
            return 1

        @env.task
        async def main() -> int:
            await step()
            mark("waits")
            while not os.path.exists("go"):
                await asyncio.sleep(0.05)
            return 1

        print(flyte.run(main).outputs()[0])
        """
    )
    process = scripts.start("perdure.flyte", "script.py")
    try:
        wait_for(
            lambda: (scripts.directory / "marks").exists() and "waits" in (scripts.directory / "marks").read_text()
        )
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()
    (scripts.directory / "go").touch()
    assert scripts.run("script.py") == "1\n"
    assert scripts.marks().count("step") == 1


def test_a_forked_child_that_leaves_the_script_ends_nothing(scripts: Scripts) -> None:
    scripts.write(
        """
        @env.task
        def step(number: int) -> int:
            mark(f"step{number}")
            return number

        print(flyte.run(step, 1).outputs()[0], flush=True)
        if os.fork() == 0:
            sys.exit()
        os.wait()
        print(flyte.run(step, 2).outputs()[0])
        """
    )
    scripts.run("script.py", kill_at=2)
    assert scripts.run("script.py").splitlines()[0] == "1"
    assert scripts.marks() == ["step1", "step2", "step2"]


def test_a_worker_may_carry_on_with_a_killed_script_and_the_command_waits_for_the_worker(scripts: Scripts) -> None:
    scripts.write(
        """
        import asyncio

        @env.task
        async def step() -> int:
            mark("step")
            return 1

        @env.task
        async def main() -> int:
            total = await step()
            mark("waits")
            while not os.path.exists("go"):
                await asyncio.sleep(0.05)
            return total

        if __name__ == "__main__":
            print(flyte.run(main).outputs()[0])
        """
    )
    scripts.run("script.py", kill_at=2)
    scripts.marks()
    worker = scripts.start("perdure", "serve", "script.py")
    try:
        wait_for(lambda: (scripts.directory / "marks").exists())
        again = scripts.start("perdure.flyte", "script.py")
        try:
            wait_for(lambda: "waiting for its end" in again.stderr.readline())  # type: ignore[union-attr]
            (scripts.directory / "go").touch()
            assert again.communicate(timeout=PATIENCE)[0] == "1\n"
        finally:
            again.kill()
    finally:
        worker.terminate()
        worker.communicate(timeout=PATIENCE)
    assert scripts.marks() == ["waits"]


def test_a_sandboxed_task_can_be_declared_and_forwarded_and_its_use_is_refused_with_the_remedy(
    scripts: Scripts,
) -> None:
    """The family: a sync function, an async function, settings, a string of code; a call, a run, another attribute."""
    scripts.write("""
        import asyncio
        import flyte.sandbox

        @env.task
        def add(x: int, y: int) -> int:
            return x + y

        @env.sandbox.orchestrator
        def pipeline(n: int) -> dict[str, int]:
            return {"total": add(add(n, 2), 5)}

        @env.sandbox.orchestrator(name="own", retries=2)
        async def slow(n: int) -> int:
            return add(n, 1)

        coded = flyte.sandbox.orchestrator_from_str("x + 1", inputs={"x": int}, output=int, tasks=[add], name="coded")
        group = flyte.TaskEnvironment.from_task("group", coded)
        print(pipeline.forward(10), asyncio.run(slow.forward(1)), sorted(env.tasks), list(group.tasks))
        for use in (lambda: pipeline(1), lambda: flyte.run(slow, n=1), lambda: coded.cache, lambda: coded.forward(1)):
            try:
                use()
            except Exception as error:
                print(type(error).__name__, error)
    """)
    forwarded, *refused = scripts.run("script.py").splitlines()
    assert forwarded == "{'total': 17} 2 ['own', 'script.add', 'script.pipeline'] ['coded']"
    remedy = "absent in perdure: run code that you do not trust in a ContainerTask"
    assert refused[0].startswith(f"UsageError sandboxed task script.pipeline is {remedy}")
    assert "sandboxed task own, absent in perdure" in refused[1]
    assert refused[2].startswith(f"UsageError sandboxed task coded.cache is {remedy}")
    assert refused[3] == "NotImplementedError sandboxed task coded is a string of code: it has no function to call"


def test_outputs_are_declared_as_artifacts_and_nothing_is_published(scripts: Scripts) -> None:
    """The family: a wrapped output, a caller's declaration, triggers by an artifact, cards, a value of another type."""
    scripts.write("""
        from datetime import date
        from pathlib import Path
        import flyte.artifacts as artifacts
        from flyte.io import File

        onward = flyte.Trigger(
            name="onward", automation=flyte.OnArtifact(name="events", region="us"),
            inputs={"events": flyte.TriggeredArtifact, "region": flyte.TriggeredPartition("region")},
        )

        @env.task(produces_artifacts=True)
        async def produced(day: date) -> File:
            mark("produced")
            Path("events.txt").write_text(f"{day} events")
            parts = {"date": artifacts.TimePartition(day, "month"), "region": "us"}
            card = artifacts.Card.create_from(content="<p>card</p>")
            file = await File.from_local("events.txt")
            return artifacts.new(file, artifacts.Metadata(name="events", partitions=parts, card=card))

        @env.task(triggers=(onward,))
        async def read(events: File, region: str = "us") -> str:
            async with events.open("rb") as stream:
                return bytes(await stream.read()).decode() + region

        @env.task
        async def main() -> str:
            with artifacts.produces(o0=artifacts.Metadata.create_model_metadata(name="model", framework="own")):
                events = await produced.override(produces_artifacts=True)(date(2026, 8, 1))
            return await read(events)

        if __name__ == "__main__":
            print(flyte.run(main).outputs()[0])
            try:
                artifacts.new("text", artifacts.Metadata(name="text"))
            except TypeError as error:
                print(error)
    """)
    scripts.run("script.py", kill_at=1)
    assert scripts.run("script.py").splitlines() == [
        "2026-08-01 eventsus",
        "a value of type str cannot be an artifact: use a File, a Dir or a DataFrame",
    ]
