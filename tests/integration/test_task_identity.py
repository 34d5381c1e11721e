"""A task is identified by its full declared name: in journals, in other processes, and at its declaration.

Family: two functions that Python gives the same qualified name (lambdas, redefinitions, closures of a factory).
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_HEAD = """
import os, sys
import perdure
env = perdure.TaskEnvironment(name="shop", executor=os.environ.get("WHERE", "local"))
"""

_TWINS = {
    "lambdas": """
        charge = env.task(short_name="charge")(lambda amount: ("charge", amount))
        refund = env.task(short_name="refund")(lambda amount: ("refund", amount))
    """,
    "redefinitions": """
        @env.task(short_name="charge")
        def step(amount: int) -> tuple[str, int]:
            return "charge", amount
        charge = step
        @env.task(short_name="refund")
        def step(amount: int) -> tuple[str, int]:
            return "refund", amount
        refund = step
    """,
    "closures of a factory, in a dict": """
        def make(word):
            def step(amount: int) -> tuple[str, int]:
                return word, amount
            return env.task(short_name=word)(step)
        steps = {word: make(word) for word in ("charge", "refund")}
        charge, refund = (lambda amount: steps["charge"](amount)), (lambda amount: steps["refund"](amount))
    """,
    "a factory of another module": """
        from factory import make
        charge, refund = make(env, "charge"), make(env, "refund")
    """,
}

_FACTORY = """
def make(env, word):
    def step(amount: int) -> tuple[str, int]:
        return word, amount
    return env.task(short_name=word)(step)
"""


def _python(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a program, in a directory of its own."""
    (folder / "factory.py").write_text(textwrap.dedent(_FACTORY))
    (folder / "shop.py").write_text(script)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    return subprocess.run(
        [sys.executable, "shop.py"],
        cwd=folder,
        env=clean | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def _script(*parts: str) -> str:
    return _HEAD + "\n".join(textwrap.dedent(part) for part in parts)


_MAIN = """
@env.task
def main() -> list:
    return [charge(1), refund(2)]

if __name__ == "__main__":
    print(perdure.run(main).result)
"""


@pytest.mark.parametrize("twins", _TWINS)
@pytest.mark.parametrize("where", ["local", "process"])
def test_each_of_two_tasks_with_one_qualified_name_runs_its_own_function(
    tmp_path: Path, twins: str, where: str
) -> None:
    done = _python(tmp_path, _script(_TWINS[twins], _MAIN), WHERE=where)
    assert done.stdout == "[('charge', 1), ('refund', 2)]\n", done.stderr


@pytest.mark.parametrize("twins", _TWINS)
def test_the_outcome_of_a_task_never_answers_the_call_of_its_twin(tmp_path: Path, twins: str) -> None:
    """The code calls another task on replay: a mismatch, and not the other task's outcome."""
    script = _script(
        _TWINS[twins],
        """
        @env.task
        def main() -> str:
            word = (charge if os.environ["CALL"] == "charge" else refund)(5)
            if os.environ["CALL"] == "charge":
                os._exit(9)
            return str(word)

        if __name__ == "__main__":
            print(perdure.with_runcontext(name="one").run(main).result)
        """,
    )
    assert _python(tmp_path, script, CALL="charge").returncode == 9
    second = _python(tmp_path, script, CALL="refund")
    assert "NonDeterminismError" in second.stderr, second.stdout
    assert "shop.charge" in second.stderr
    assert "shop.refund" in second.stderr


@pytest.mark.parametrize("twins", _TWINS)
def test_resume_finds_the_task_of_a_run_by_its_declared_name(tmp_path: Path, twins: str) -> None:
    script = _script(
        _TWINS[twins],
        """
        if __name__ == "__main__":
            perdure.with_runcontext(name="one").submit(
                steps["refund"] if "steps" in globals() else refund, 3)
        """,
    )
    done = _python(tmp_path, script)
    assert done.returncode == 0, done.stderr
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    resumed = subprocess.run(
        [sys.executable, "-m", "perdure", "resume", "one", "--json"], cwd=tmp_path, env=clean, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert '"refund"' in resumed.stdout, resumed.stderr


_TRACED_TWINS = {
    "lambdas": """
        charge = perdure.trace(lambda amount: ("charge", amount))
        refund = perdure.trace(lambda amount: ("refund", amount))
    """,
    "redefinitions": """
        @perdure.trace
        def step(amount: int) -> tuple[str, int]:
            return "charge", amount
        charge = step
        @perdure.trace
        def step(amount: int) -> tuple[str, int]:
            return "refund", amount
        refund = step
    """,
    "closures of a factory": """
        def make(word):
            @perdure.trace
            def step(amount: int) -> tuple[str, int]:
                return word, amount
            return step
        charge, refund = make("charge"), make("refund")
    """,
}


@pytest.mark.parametrize("twins", _TRACED_TWINS)
def test_the_outcome_of_a_trace_never_answers_the_call_of_its_twin(tmp_path: Path, twins: str) -> None:
    script = _script(
        _TRACED_TWINS[twins],
        """
        @env.task
        def main() -> str:
            word = (charge if os.environ["CALL"] == "charge" else refund)(5)
            if not os.path.exists("go"):
                os._exit(9)
            return str([word, charge(1), refund(1)])

        if __name__ == "__main__":
            print(perdure.with_runcontext(name="one").run(main).result)
        """,
    )
    assert _python(tmp_path, script, CALL="charge").returncode == 9
    second = _python(tmp_path, script, CALL="refund")
    assert "NonDeterminismError" in second.stderr, second.stdout
    assert "#2" in second.stderr
    (tmp_path / "go").touch()
    done = _python(tmp_path, script, CALL="charge")
    assert done.stdout == "[('charge', 5), ('charge', 1), ('refund', 1)]\n", done.stderr


def test_a_trace_that_each_call_of_a_body_declares_again_replays(tmp_path: Path) -> None:
    """Its order in the process means nothing, so it is not numbered."""
    script = _script(
        """
        @env.task
        def main() -> list:
            found = []
            for number in range(3):
                @perdure.trace
                def step(n: int) -> int:
                    return n * number
                found.append(step(10))
            if not os.path.exists("go"):
                open("go", "w").close()
                os._exit(9)
            return found

        if __name__ == "__main__":
            print(perdure.with_runcontext(name="one").run(main).result)
        """,
    )
    assert _python(tmp_path, script).returncode == 9
    assert _python(tmp_path, script).stdout == "[0, 10, 20]\n"


_SAME_NAME = {
    "two functions": """
        @env.task
        def step() -> int: return 1
        @env.task
        def step() -> int: return 2
    """,
    "two lambdas": """
        a = env.task(short_name="x")(lambda: 1)
        b = env.task(short_name="x")(lambda: 2)
    """,
    "two environments of one name": """
        other = perdure.TaskEnvironment(name="shop")
        @env.task
        def step() -> int: return 1
        a = step
        @other.task
        def step() -> int: return 2
    """,
    "a factory called twice": """
        from factory import make
        a, b = make(env, "x"), make(env, "x")
    """,
    "two modules of one project": """
        import module_a, module_b
    """,
}


@pytest.mark.parametrize("case", _SAME_NAME)
def test_two_tasks_of_one_name_are_refused_at_the_declaration(tmp_path: Path, case: str) -> None:
    """TN1 and TN2, the second with two modules of one project."""
    for name in ("module_a", "module_b"):
        (tmp_path / f"{name}.py").write_text(
            f"import perdure\nenv = perdure.TaskEnvironment('pay')\n@env.task\ndef step() -> str: return '{name}'\n"
        )
    done = _python(tmp_path, _script(_SAME_NAME[case]))
    assert "UsageError: two tasks are called" in done.stderr
    assert "short_name" in done.stderr


_REDEFINED = {
    "a cell of a notebook that runs again": """
        for _ in range(2):
            exec(compile("@env.task\\ndef step() -> int: return 1", "cell", "exec"))
    """,
    "a reloaded module": """
        import importlib, module_a
        importlib.reload(module_a)
    """,
    "a function that declares a task at each call": """
        def handle():
            @env.task
            def step() -> int: return 1
        if __name__ == "__main__":
            import threading
            for _ in range(2):
                thread = threading.Thread(target=handle); thread.start(); thread.join()
    """,
    "the program imported by its own name": """
        @env.task
        def step() -> int: return 1
        if __name__ == "__main__":
            import shop
    """,
}


@pytest.mark.parametrize("case", _REDEFINED)
def test_a_definition_may_replace_itself(tmp_path: Path, case: str) -> None:
    (tmp_path / "module_a.py").write_text(
        "import perdure\nenv = perdure.TaskEnvironment(name='pay')\n@env.task\ndef step() -> int: return 1\n"
    )
    done = _python(tmp_path, _script(_REDEFINED[case], "print('fine')"))
    assert done.stdout.endswith("fine\n"), done.stderr


def test_a_task_that_importing_its_module_does_not_declare_is_refused_by_other_processes(tmp_path: Path) -> None:
    script = _script(
        """
        def late():
            return env.task(short_name="late")(lambda: 1)

        @env.task
        def main() -> int:
            return late()()

        if __name__ == "__main__":
            print(perdure.run(main).result)
        """
    )
    done = _python(tmp_path, script, WHERE="process")
    assert "UsageError: task shop.late executes in another process" in done.stderr
