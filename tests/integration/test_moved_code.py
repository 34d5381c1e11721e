"""A traced function is known by its module and its name. A run continues where the module has been renamed since, and
where a helper has been moved to another module.

Family: the same function in another module. The script renamed, moved to another directory, made part of a package,
left behind as a copy; a helper moved to a new module, to an existing one, with its old module gone, kept, kept with an
import; a method; a generator. On the other side, two functions that share no more than their name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.integration.shell import Shell

SCRIPT = """
    import os
    import perdure

    env = perdure.TaskEnvironment(name="w")

    def log(word):
        with open("log", "a") as stream:
            stream.write(word + "\\n")

    @perdure.trace
    def step(n: int) -> int:
        log(f"step{n}")
        return n * n

    @perdure.trace
    def started() -> str:
        log("started")
        return "s"

    @perdure.trace
    def pair(n: int):
        log(f"pair{n}")
        yield n
        yield n + 1

    @env.task
    async def main() -> list[int]:
        started()
        found = [step(1), step(1), *pair(5), step(2)]
        if not os.path.exists("go"):
            os.kill(os.getpid(), 9)
        return [*found, step(1), step(3)]
"""
STEPS = ["started", "step1", "step1", "pair5", "step2"]


def killed(shell: Shell, file: str = "flow.py", script: str = SCRIPT) -> None:
    shell.write(file, script)
    assert shell("run", file, "main", "--name", "x").returncode == -9
    assert shell.log() == STEPS


def continues(shell: Shell, *words: str) -> None:
    (shell.path / "go").touch()
    done = shell("resume", "x", *words)
    assert (done.returncode, done.stdout) == (0, "[1, 1, 5, 6, 4, 1, 9]\n"), done.stderr
    assert shell.log() == [*STEPS, "step1", "step3"]


def test_a_renamed_script_continues(shell: Shell) -> None:
    killed(shell)
    os.rename(shell.path / "flow.py", shell.path / "new.py")
    done = shell("resume", "x")
    assert done.returncode == 2
    assert "is gone. If it has moved: perdure resume x --file NEW_PATH" in done.stderr
    continues(shell, "--file", "new.py")


def test_a_script_that_is_renamed_twice_and_killed_in_between_continues(shell: Shell) -> None:
    """The second process records under the old name what it executes."""
    script = SCRIPT.replace("return [*found, step(1), step(3)]", """found += [step(1)]
        if not os.path.exists("further"):
            os.kill(os.getpid(), 9)
        return [*found, step(3)]""")  # fmt: skip
    killed(shell, script=script)
    os.rename(shell.path / "flow.py", shell.path / "new.py")
    (shell.path / "go").touch()
    assert shell("resume", "x", "--file", "new.py").returncode == -9
    os.rename(shell.path / "new.py", shell.path / "newer.py")
    (shell.path / "further").touch()
    done = shell("resume", "x", "--file", "newer.py")
    assert (done.returncode, done.stdout) == (0, "[1, 1, 5, 6, 4, 1, 9]\n"), done.stderr
    assert shell.log() == [*STEPS, "step1", "step3"]


def test_a_copy_of_the_script_continues_when_it_is_named(shell: Shell) -> None:
    killed(shell)
    shutil.copy(shell.path / "flow.py", shell.path / "new.py")
    continues(shell, "--file", "new.py")


def test_a_script_that_has_become_part_of_a_package_continues(shell: Shell) -> None:
    killed(shell)
    (shell.path / "app").mkdir()
    (shell.path / "app" / "__init__.py").touch()
    os.rename(shell.path / "flow.py", shell.path / "app" / "flows.py")
    continues(shell, "--file", "app/flows.py")


def test_a_script_that_has_moved_to_another_directory_continues(shell: Shell) -> None:
    killed(shell)
    (shell.path / "jobs").mkdir()
    os.rename(shell.path / "flow.py", shell.path / "jobs" / "new.py")
    continues(shell, "--file", "jobs/new.py")


def test_a_renamed_script_with_bodies_in_pool_processes_continues(shell: Shell) -> None:
    # The body waits for its own end, which follows: it could go on with the next step meanwhile.
    kill = "os.kill(os.getppid(), 9), __import__('time').sleep(60)"
    script = SCRIPT.replace('name="w"', 'name="w", executor="process"').replace("os.kill(os.getpid(), 9)", kill)
    shell.write("flow.py", script)
    assert shell("run", "flow.py", "main", "--name", "x").returncode == -9
    os.rename(shell.path / "flow.py", shell.path / "new.py")
    (shell.path / "go").touch()
    done = shell("resume", "x", "--file", "new.py")
    assert (done.returncode, done.stdout) == (0, "[1, 1, 5, 6, 4, 1, 9]\n"), done.stderr
    assert shell.log() == [*STEPS, "step1", "step3"]


HEAD = SCRIPT.partition("    @perdure.trace")[0]
TRACES = SCRIPT[SCRIPT.index("    @perdure.trace") : SCRIPT.index("    @env.task")]
BODY = SCRIPT[SCRIPT.index("    @env.task") :]
HELPERS = HEAD + TRACES


def importing(module: str) -> str:
    return HEAD.replace("import perdure", f"import perdure\n    from {module} import pair, started, step") + BODY


@pytest.mark.parametrize("old", ["gone", "without it", "importing it", "not imported"])
@pytest.mark.parametrize("new", ["tools", "other.tools"])
def test_a_moved_helper_is_not_executed_again(shell: Shell, old: str, new: str) -> None:
    shell.write("helpers.py", HELPERS)
    killed(shell, script=importing("helpers"))
    path = shell.path / f"{new.replace('.', '/')}.py"
    path.parent.mkdir(exist_ok=True)
    os.rename(shell.path / "helpers.py", path)
    script = importing(new)
    if old == "without it":
        shell.write("helpers.py", "def other(): pass")
        script = script.replace("import os", "import os, helpers")
    elif old == "importing it":
        shell.write("helpers.py", f"from {new} import *")
        script = script.replace("import os", "import os, helpers")
    elif old == "not imported":
        shell.write("helpers.py", "def other(): pass")
    shell.write("flow.py", script)
    continues(shell)


def test_a_moved_method_is_not_executed_again(shell: Shell) -> None:
    client = """
    import perdure
    class Client:
        @perdure.trace(ignore=("self",))
        def get(self, n: int) -> int:
            with open("log", "a") as stream:
                stream.write(f"get{n}\\n")
            return n
    """
    body = """
    import os, perdure
    from one import Client
    env = perdure.TaskEnvironment(name="w")
    @env.task
    def main() -> int:
        found = Client().get(1)
        if not os.path.exists("go"):
            os.kill(os.getpid(), 9)
        return found
    """
    shell.write("one.py", client)
    shell.write("flow.py", body)
    assert shell("run", "flow.py", "main", "--name", "x").returncode == -9
    os.rename(shell.path / "one.py", shell.path / "two.py")
    shell.write("flow.py", body.replace("from one", "from two"))
    (shell.path / "go").touch()
    assert shell("resume", "x").stdout == "1\n"
    assert shell.log() == ["get1"]


def test_another_function_of_the_same_name_does_not_get_the_outcome(shell: Shell) -> None:
    """`b.fetch` was there before, too; the recorded call was one of `a.fetch`."""
    for name in "ab":
        shell.write(f"{name}.py", f"""
            import perdure
            @perdure.trace
            def fetch(n: int) -> str:
                with open("log", "a") as stream:
                    stream.write("{name}\\n")
                return "{name}"
        """)  # fmt: skip
    body = """
    import os, perdure
    import a, b
    env = perdure.TaskEnvironment(name="w")
    @env.task
    def main() -> str:
        found = a.fetch(1)
        if not os.path.exists("go"):
            os.kill(os.getpid(), 9)
        return found
    """
    shell.write("flow.py", body)
    assert shell("run", "flow.py", "main", "--name", "x").returncode == -9
    shell.write("flow.py", body.replace("a.fetch(1)", "b.fetch(1)"))
    (shell.path / "go").touch()
    done = shell("resume", "x")
    assert done.stdout == "b\n"
    assert shell.log() == ["a", "b"]
    assert "trace fetch({'n': 1}) [entry 1, call 0 of its branch] of module a was asked for" in done.stderr
    assert f"as trace fetch({{'n': 1}}) of module b ({Path(shell.path).resolve() / 'b.py'}:3)" in done.stderr


def test_a_mismatch_names_both_modules_and_the_line(shell: Shell) -> None:
    shell.write("a.py", HELPERS)
    shell.write("b.py", HELPERS)
    script = importing("a").replace("import perdure\n", "import perdure, a, b\n", 1)
    script = script.replace("step(2)]", '(b if os.environ.get("B") else a).step(2)]')
    killed(shell, script=script)
    (shell.path / "go").touch()
    done = shell("resume", "x", B="1")
    assert done.returncode == 1
    assert "of module a\n" in done.stderr
    assert f"of module b ({Path(shell.path).resolve() / 'b.py'}:" in done.stderr
