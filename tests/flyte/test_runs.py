"""Runs of Flyte's scripts: `flyte.run`, outputs, failures, settings without an effect, and the name `flyte` itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.flyte.scripts import Scripts
from tests.waiting import PATIENCE


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


def test_outputs_are_named_and_positional(scripts: Scripts) -> None:
    """The family: one value, a tuple, a named tuple, nothing, a tuple inside of a list."""
    scripts.write(
        """
        from typing import NamedTuple

        class Pair(NamedTuple):
            left: int
            right: str

        @env.task
        def one() -> int:
            return 1

        @env.task
        async def two() -> tuple[int, str]:
            return 1, "b"

        @env.task
        def named() -> Pair:
            return Pair(1, "b")

        @env.task
        def nothing() -> None:
            return None

        @env.task
        def nested() -> list[tuple[int, str]]:
            return [(1, "b")]

        for task in (one, two, named, nothing, nested):
            found = flyte.run(task).outputs()
            print(repr(found), len(found), found[0])
        print(flyte.run(two).outputs().o1, flyte.run(named).outputs().left)
        """
    )
    assert scripts.run("script.py").splitlines() == [
        "ActionOutputs(o0=1) 1 1",
        'ActionOutputs(o0=1, o1="b") 2 1',
        'ActionOutputs(o0=1, o1="b") 2 1',
        "ActionOutputs(o0=None) 1 None",
        "ActionOutputs(o0=[(1, 'b')]) 1 [(1, 'b')]",
        "b 1",
    ]


def test_a_failure_is_a_runtime_user_error_and_its_own_class(scripts: Scripts) -> None:
    """The family: a built-in error, an error with attributes of the system, one of two arguments, a class of the
    script's, an error that is Flyte's already, a timeout; caught in a task, and by the caller of `flyte.run`."""
    scripts.write(
        """
        import asyncio
        import flyte.errors

        class Own(Exception):
            def __init__(self, first, second):
                super().__init__(first, second)
                self.first = first

        @env.task
        async def failing(kind: str) -> int:
            if kind == "value":
                raise ValueError("three")
            if kind == "system":
                raise FileNotFoundError(2, "no such file", "name")
            if kind == "key":
                raise KeyError("k")
            if kind == "own":
                raise Own(1, "b")
            raise flyte.errors.CustomError("CODE", "custom")

        @env.task(timeout=1)
        async def slow() -> int:
            await asyncio.sleep(60)
            return 1

        KINDS = {"value": ValueError, "system": FileNotFoundError, "key": KeyError, "own": Own,
                 "custom": flyte.errors.CustomError}

        @env.task
        async def main() -> list[str]:
            found = []
            for kind, cls in KINDS.items():
                try:
                    await failing(kind)
                except cls as error:
                    assert isinstance(error, flyte.errors.RuntimeUserError)
                    found.append(f"{type(error).__name__} {error.code} {error}")
            try:
                await slow()
            except flyte.errors.TaskTimeoutError as error:
                found.append(f"{type(error).__name__} {error.code}")
            try:
                await failing("system")
            except OSError as error:
                found.append(f"{error.errno} {error.filename}")
            try:
                await failing("own")
            except Own as error:
                found.append(str(error.first))
            mark("end")
            return found

        if __name__ == "__main__":
            for line in flyte.run(main).outputs()[0]:
                print(line)
            try:
                flyte.run(failing, "value")
            except ValueError as error:
                print(type(error).__name__, error.code, error.run.phase)
        """
    )
    expected = [
        "RuntimeUserError ValueError three",
        "RuntimeUserError FileNotFoundError [Errno 2] no such file: 'name'",
        "RuntimeUserError KeyError 'k'",
        "RuntimeUserError Own (1, 'b')",
        "RuntimeUserError CODE custom",
        "TaskTimeoutError TaskTimeoutError",
        "2 name",
        "1",
        "RuntimeUserError ValueError failed",
    ]
    assert scripts.run("script.py").splitlines() == expected
    scripts.marks()
    scripts.run("script.py", kill_at=1)  # every failure is recorded, and comes from the journal
    assert scripts.run("script.py").splitlines() == expected


def test_a_run_within_a_task_is_a_child_action(scripts: Scripts) -> None:
    """The family: awaited in an async task, in a sync task; killed behind the child."""
    scripts.write(
        """
        @env.task
        def child(number: int) -> int:
            mark(f"child{number}")
            return number

        @env.task
        async def first() -> int:
            run = await flyte.run.aio(child, 1)
            return (await run.outputs.aio())[0]

        @env.task
        def second() -> int:
            return flyte.run(child, number=2).outputs()[0]

        @env.task
        async def main() -> int:
            total = await first() + await second.aio()
            mark("end")
            return total

        if __name__ == "__main__":
            print(flyte.run(main).outputs()[0])
        """
    )
    scripts.run("script.py", kill_at=3)
    assert scripts.run("script.py") == "3\n"
    assert scripts.marks() == ["child1", "child2", "end", "end"]


def test_settings_without_an_effect_are_recorded_and_said_once(scripts: Scripts) -> None:
    scripts.write(
        """
        image = flyte.Image.from_debian_base(python_version=(3, 12), name="own").with_pip_packages("a", pre=True)
        image = image.with_apt_packages("b").with_env_vars({"C": "d"}).with_commands(["e"]).with_workdir("/f")
        big = flyte.TaskEnvironment(
            "big", image=image, resources=flyte.Resources(cpu=(1, 2), memory="1Gi", gpu="T4:2", disk="1Gi", shm="auto"),
            reusable=flyte.ReusePolicy((1, 2), idle_ttl=60, concurrency=3), secrets=[flyte.Secret("key", "group")],
            env_vars={"SET": "here", "UNSET": None}, depends_on=[env], description="text", queue="q",
            pod_template=flyte.PodTemplate(labels={"a": "b"}, annotations={}), interruptible=True,
        )

        @big.task(report=True, docs=flyte.Documentation("text"), queue="other", max_inline_io_bytes=5)
        def main(number: int) -> str:
            return os.environ["SET"] + os.environ.get("MORE", "")

        assert main.resources.get_device().quantity == 2 and main.queue == "other" and main.image is image
        assert big.clone_with("other", interruptible=False).resources is big.resources
        assert list(big.tasks) == ["big.main"]
        other = main.override(resources=flyte.Resources(cpu=8), env_vars={"MORE": "!"}, retries=2)
        assert other.resources.cpu == 8 and main.resources.cpu == (1, 2)

        @env.task
        async def outer() -> str:
            return await other.aio(1)

        print(flyte.run(main, 1).outputs()[0])
        print(flyte.with_runcontext(mode="local", labels={"a": "b"}).run(outer).outputs()[0])
        """
    )
    process = scripts.start("perdure.flyte", "script.py")
    out, err = process.communicate(timeout=PATIENCE)
    assert out.splitlines() == ["here", "here!"], err
    lines = [line for line in err.splitlines() if "without an effect" in line]
    assert [line.count("image (environment big)") for line in lines] == [1, 0]
    assert "labels (with_runcontext)" in lines[1]


def test_flyte_and_perdure_flyte_are_one_module(scripts: Scripts) -> None:
    """The family: the package, a submodule, a name from a submodule, an unknown submodule."""
    scripts.write(
        """
        import flyte.io, flyte.errors as errors
        from flyte.extras import ContainerTask
        import perdure.flyte, perdure.flyte.extras

        assert flyte is perdure.flyte and flyte.io is perdure.flyte.io and errors is perdure.flyte.errors
        assert ContainerTask is perdure.flyte.extras.ContainerTask
        assert flyte.__spec__.name == "perdure.flyte" and __name__ == "__main__" and sys.argv == ["script.py", "x"]
        try:
            import flyte.nothing
        except ModuleNotFoundError as error:
            print(error)
        """
    )
    assert scripts.run("script.py", "x") == "No module named 'flyte.nothing'\n"


def test_absent_names_can_be_imported_and_say_one_sentence_when_used(scripts: Scripts) -> None:
    """The family: called, an attribute of, a base class; annotations and `isinstance` stay possible."""
    scripts.write(
        """
        import flyte.remote
        from flyte.remote import Project, Task

        def annotated(task: Task | None, other: list[Project]) -> Task: ...

        assert not isinstance(env, Project)
        def derive():
            class Own(Project): ...
        for use in (lambda: Task.get("x"), lambda: flyte.deploy(env), lambda: flyte.remote.Project("x"), derive,
                    lambda: flyte.with_runcontext(mode="remote")):
            try:
                use()
            except Exception as error:
                print(len(str(error).splitlines()), "perdure" in str(error))
        """
    )
    assert scripts.run("script.py") == "1 True\n" * 5


def test_the_command_line_loads_scripts_that_import_flyte(scripts: Scripts) -> None:
    """The family: run by name, a pool of processes is not needed; carried on by resume; checked inputs."""
    scripts.write(
        """
        @env.task
        async def main(number: int = 2) -> int:
            return number * 2
        """
    )
    assert scripts.perdure("run", "script.py", "main", "--name", "r", "--number", "4") == "8\n"
    assert json.loads(scripts.perdure("show", "r", "--json"))["status"] == "SUCCEEDED"


def test_a_script_that_is_missing_is_one_message(scripts: Scripts) -> None:
    assert scripts.run("missing.py", code=2).strip() == "python -m perdure.flyte: missing.py: No such file or directory"
    assert "usage: python -m perdure.flyte" in scripts.run(code=2)


def test_importing_perdure_flyte_first_puts_the_alias_in_front(scripts: Scripts) -> None:
    (scripts.directory / "flyte.py").write_text("raise SystemExit('the other flyte')")
    (scripts.directory / "program.py").write_text("import perdure.flyte\nimport flyte\nprint(flyte.TaskEnvironment)")
    process = scripts.start("program")
    out, err = process.communicate(timeout=PATIENCE)
    assert "perdure.flyte" in out, err


def test_objects_of_plain_classes_and_functions_are_values(scripts: Scripts) -> None:
    """The family: an object as input, in a dict, as result; a function, a task, a trace; killed and carried on."""
    scripts.write(
        """
        from typing import Awaitable, Callable

        class Base:
            def __init__(self, name: str):
                mark("init")
                self.name = name

        class Thing(Base):
            def __init__(self, name: str, value: int):
                super().__init__(name)
                self.value = value

        @env.task
        async def add_one(number: int) -> int:
            return number + 1

        async def add_two(number: int) -> int:
            return number + 2

        @flyte.trace
        async def add_three(number: int) -> int:
            return number + 3

        @env.task
        async def apply(number: int, function: Callable[[int], Awaitable[int]]) -> int:
            return await function(number)

        @env.task
        async def wrap(thing: Thing) -> dict[str, Thing]:
            thing.value += 1
            return {thing.name: thing}

        @env.task
        async def main(thing: Thing) -> Thing:
            found = (await wrap(thing))["a"]
            for function in (add_one, add_two, add_three):
                found.value += await apply(10, function)
            mark("end")
            return found

        @env.task
        async def local() -> int:
            return await apply(1, lambda number: number)

        if __name__ == "__main__":
            found = flyte.run(main, Thing("a", 100)).outputs()[0]
            print(type(found).__name__, vars(found))
            try:
                flyte.run(local)
            except Exception as error:
                print(error)
        """
    )
    scripts.run("script.py", kill_at=2)
    first, second = scripts.run("script.py").splitlines()
    assert first == "Thing {'name': 'a', 'value': 137}"
    assert "<lambda>" in second
    assert "only functions and tasks at the top level" in second
    assert scripts.marks() == ["init", "end", "init", "end"]


def test_an_uncaught_exception_shows_the_frames_of_the_script_alone(scripts: Scripts) -> None:
    scripts.write("raise ValueError('own')")
    lines = scripts.run("script.py", code=1).splitlines()
    assert [line for line in lines if line.startswith("  File ")] == [
        f'  File "{scripts.directory / "script.py"}", line 13, in <module>'
    ]
    assert lines[-1] == "ValueError: own"


def test_an_environment_can_be_cloned_without_a_setting(scripts: Scripts) -> None:
    """The family: a setting of the call, a setting that is kept, a setting that is taken back, an unknown setting."""
    scripts.write(
        """
        first = flyte.TaskEnvironment("first", reusable=flyte.ReusePolicy(1), image="a:b", queue="q")
        second = first.clone_with("second", reusable=None, plugin_config="config", image="c:d")
        print(second.reusable, second.plugin_config, second.image, second.queue, first.image)
        try:
            first.clone_with("third", unknown=1)
        except TypeError as error:
            print("unknown" in str(error))
        """
    )
    assert scripts.run("script.py") == "None config c:d q a:b\nTrue\n"


def test_the_url_of_a_run_leads_to_the_run_from_any_directory(scripts: Scripts, tmp_path: Path) -> None:
    """The family: the URL in the run's directory, elsewhere; a name with blanks and a mark; the plain name."""
    scripts.write(
        """
        @env.task
        def main() -> int:
            return 1

        for name in ("plain", "two words #2"):
            print(flyte.with_runcontext(name=name).run(main).url)
        """
    )
    first, second = scripts.run("script.py").splitlines()
    elsewhere = Scripts(tmp_path / "elsewhere")
    elsewhere.directory.mkdir()
    for place, name, found in (
        (scripts, first, "plain"), (elsewhere, first, "plain"), (elsewhere, second, "two words #2"),
        (scripts, "two words #2", "two words #2"),
    ):  # fmt: skip
        assert json.loads(place.perdure("show", name, "--json"))["name"] == found
    assert not (elsewhere.directory / ".perdure").exists()


def test_container_tasks_take_images_and_settings_of_flyte(scripts: Scripts) -> None:
    """The family: a name, a base, a chain of layers, a Dockerfile; resources with ranges; an override."""
    (scripts.directory / "Dockerfile").write_text("FROM alpine:3.20\n")
    scripts.write(
        """
        from flyte.extras import ContainerTask

        images = ["alpine:3.20", flyte.Image.from_base("alpine:3.21"),
                  flyte.Image.from_dockerfile("Dockerfile", "r", "n"),
                  flyte.Image.from_debian_base(name="own", registry="example.org").with_pip_packages("a")]
        tasks = [
            ContainerTask(
                f"task{number}", image, ["echo", "{{.inputs.x}}"], {"x": int}, outputs={"o": str},
                resources=flyte.Resources(cpu=(1, 2), memory=("1Gi", "2Gi"), gpu="T4:1", shm="auto"), retries=2,
                timeout=flyte.Timeout(max_runtime=5), pod_template=flyte.PodTemplate(), report=True, entrypoint=False,
            )
            for number, image in enumerate(images)
        ]
        group = flyte.TaskEnvironment.from_task("group", *tasks)
        print(sorted(group.tasks))
        for task in tasks:
            image = task.program.image
            print(image.partition(":")[0] if isinstance(image, str) else type(image).__name__, task.spec.timeout)
        other = tasks[0].override(image=flyte.Image.from_base("busybox"), resources=flyte.Resources(cpu="500m"))
        print(other.program.image, type(other) is ContainerTask, other.spec.retries.count)
        """
    )
    assert scripts.run("script.py").splitlines() == [
        "['group.task0', 'group.task1', 'group.task2', 'group.task3']",
        "alpine 5.0",
        "alpine 5.0",
        "Build 5.0",
        "example.org/own 5.0",
        "busybox True 2",
    ]
