"""A run goes on where its file was renamed since, and where its task or a task that it calls has another name.

Family: what has another name (the file, the task of the run, a child that had ended, a child under way), how that is
said (`resume --file`, `formerly`), and who goes on (a plain `resume`, a worker, the program itself, a rehearsal).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.shell import Shell
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure.errors import UsageError

SCRIPT = """
    import os
    import perdure
    from perdure import durable

    env = perdure.TaskEnvironment("w")

    def log(word):
        with open("log", "a") as stream:
            stream.write(word + "\\n")

    def die_unless(file):
        if not os.path.exists(file):
            os.kill(os.getpid(), 9)

    @perdure.trace
    def step(n: int) -> int:
        log(f"step{n}")
        return n

    @env.task
    def ended(n: int) -> int:
        return step(n)

    @env.task
    def under_way(n: int) -> int:
        found = step(n)
        die_unless("go")
        return found + step(n + 1)

    @env.task
    def main() -> list[int]:
        first = ended(1)
        second = under_way(2)
        die_unless("further")
        return [first, second, ended(9)]

    if __name__ == "__main__":
        print(perdure.with_runcontext(name="x").run(main).result)
"""
RENAMED = (
    SCRIPT.replace("def ended", "def over")
    .replace("ended(", "over(")
    .replace("def under_way", "def at_work")
    .replace("under_way(", "at_work(")
    .replace("def main", "def begin")
    .replace("run(main)", "run(begin)")
)
FORMERLY = (
    RENAMED.replace("@env.task\n    def over", '@env.task(formerly=["w.older", "w.ended"])\n    def over')
    .replace("@env.task\n    def at_work", '@env.task(formerly="w.under_way")\n    def at_work')
    .replace("@env.task\n    def begin", '@env.task(formerly="w.main")\n    def begin')
)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def killed(shell: Shell) -> None:
    shell.write("flow.py", SCRIPT)
    assert shell("run", "flow.py", "main", "--name", "x").returncode == -9
    assert shell.log() == ["step1", "step2"]


def goes_on(shell: Shell, *words: str) -> None:
    done = shell(*words)
    assert (done.returncode, done.stdout) == (0, "[1, 5, 9]\n"), done.stderr
    assert shell.log() == ["step1", "step2", "step3", "step9"]


def serves(shell: Shell, *files: str) -> None:
    server = subprocess.Popen([sys.executable, "-m", "perdure", "serve", *files], cwd=shell.path, env=shell.env)
    try:
        wait_for(lambda: shell.json("show", "x")["status"] == "SUCCEEDED")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE)
    assert shell.log() == ["step1", "step2", "step3", "step9"]


@pytest.mark.parametrize("old", ["gone", "a copy"])
@pytest.mark.parametrize("then", ["resume", "serve", "renamed again"])
def test_the_file_of_a_resume_is_kept(shell: Shell, old: str, then: str) -> None:
    """The run is killed once more after `resume --file`."""
    killed(shell)
    (shutil.copy if old == "a copy" else os.rename)(shell.path / "flow.py", shell.path / "new.py")
    (shell.path / "go").touch()
    assert shell("resume", "x", "--file", "new.py").returncode == -9
    assert shell.log() == ["step1", "step2", "step3"]
    (shell.path / "further").touch()
    if then == "resume":
        goes_on(shell, "resume", "x")
    elif then == "serve":
        serves(shell, "new.py")
    else:
        shutil.copy(shell.path / "new.py", shell.path / "newer.py")
        goes_on(shell, "resume", "x", "--file", "newer.py")


def test_a_file_that_lacks_the_task_is_not_kept(shell: Shell) -> None:
    killed(shell)
    shell.write("other.py", "import perdure\n")
    assert shell("resume", "x", "--file", "other.py").returncode == 2
    for name in ("go", "further"):
        (shell.path / name).touch()
    goes_on(shell, "resume", "x")


def test_a_renamed_task_without_a_word_is_a_clear_error(shell: Shell) -> None:
    killed(shell)
    shell.write("flow.py", RENAMED)
    done = shell("resume", "x")
    assert done.returncode == 2
    assert "no longer holds a task 'w.main'" in done.stderr


@pytest.mark.parametrize("how", ["resume", "serve", "the program", "killed again"])
def test_renamed_tasks_go_on_under_their_former_names(shell: Shell, how: str) -> None:
    """The task of the run, a child that had ended, and a child under way whose step is not executed again."""
    killed(shell)
    shell.write("flow.py", FORMERLY)
    (shell.path / "go").touch()
    done = shell("rehearse", "flow.py")
    assert "1 would go on unchanged" in done.stdout, done.stdout + done.stderr
    if how == "killed again":
        assert shell("resume", "x").returncode == -9
        shell.write("flow.py", FORMERLY + "\n    EDITED = True\n")
    (shell.path / "further").touch()
    if how == "serve":
        serves(shell, "flow.py")
    elif how == "the program":
        done = subprocess.run(
            [sys.executable, "flow.py"], cwd=shell.path, env=shell.env, capture_output=True, text=True, check=False
        )
        assert done.stdout == "[1, 5, 9]\n", done.stderr
        assert shell.log() == ["step1", "step2", "step3", "step9"]
    else:
        goes_on(shell, "resume", "x")


@pytest.mark.parametrize("old", ["gone", "a copy"])
def test_a_worker_takes_runs_of_a_renamed_file(shell: Shell, old: str) -> None:
    """The module has another name, and so has the task."""
    killed(shell)
    if old == "gone":
        os.remove(shell.path / "flow.py")
    shell.write("new.py", FORMERLY.replace('formerly="w.main"', 'formerly="flow.w.main"'))
    for name in ("go", "further"):
        (shell.path / name).touch()
    assert "1 would go on unchanged" in shell("rehearse", "new.py").stdout
    serves(shell, "new.py")


def test_a_worker_leaves_runs_of_another_module_alone_and_says_what_to_do(shell: Shell) -> None:
    killed(shell)
    shell.write("new.py", SCRIPT)
    server = subprocess.Popen(
        [sys.executable, "-m", "perdure", "serve", "new.py"], cwd=shell.path, env=shell.env, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        said = ""
        while "formerly='flow.w.main'" not in said:
            line = server.stderr.readline()
            assert line, said
            said += line
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("name", ["fetch", "", "a\nb.c", "file.py::module::etl.fetch", 3, ["etl.fetch", None]])
def test_what_is_no_former_name_is_refused(name: object) -> None:
    env = perdure.TaskEnvironment("etl")
    with pytest.raises(UsageError, match="formerly"):

        @env.task(formerly=name)  # type: ignore[arg-type]
        def load() -> None: ...


def test_the_present_name_is_no_former_name() -> None:
    env = perdure.TaskEnvironment("etl")
    with pytest.raises(UsageError, match="the present name"):

        @env.task(formerly="etl.load")
        def load() -> None: ...
