"""A body that catches failures and raises a summary: `resume` names these failures, and `--retry-failed` tries them.

Family: a recorded failure that no plain resume takes back. Children in a gather, mapped children, traces, a traced
generator, a child that collects failures itself, a failure of which one part escaped, bodies in pool processes.
"""

from __future__ import annotations

from tests.integration.shell import Shell

HEAD = """
    import asyncio, os
    import perdure

    env = perdure.TaskEnvironment(name="w")

    def log(word):
        with open("log", "a") as stream:
            stream.write(word + "\\n")

    def work(n):
        log(f"work{n}")
        if n % 2 and not os.path.exists("repaired"):
            raise ValueError(f"{n} is odd\\nand so on")
        return n

    @env.task
    def child(n: int) -> int:
        return work(n)

    @perdure.trace
    def step(n: int) -> int:
        return work(n)

    @perdure.trace
    def items():
        for n in (0, 2, 3):
            yield work(n)

    def summary(results):
        failed = [each for each in results if isinstance(each, BaseException)]
        if failed:
            raise RuntimeError(f"{len(failed)} failed")
        return sum(results)

    def tried(fn, *args):
        try:
            return fn(*args)
        except Exception as error:
            return error
"""
GATHERED = HEAD + """
    @env.task
    async def main() -> int:
        return summary(await asyncio.gather(*(child.aio(n) for n in range(4)), return_exceptions=True))
"""  # fmt: skip
TRACED = HEAD + """
    @env.task
    def main() -> int:
        return summary([tried(step, n) for n in range(4)])
"""  # fmt: skip
INNER = HEAD + """
    @env.task
    def collects() -> int:
        return summary([tried(child, n) for n in range(4)])

    @env.task
    def main() -> int:
        return collects()
"""  # fmt: skip
INNER_CAUGHT = INNER.replace("return collects()", "return summary([tried(collects)])")
POOL = INNER.replace('name="w"', 'name="w", executor="process"')
FIRST = ["work0", "work1", "work2", "work3"]


def fails(shell: Shell, script: str) -> str:
    shell.write("flow.py", script)
    done = shell("run", "flow.py", "main", "--name", "x")
    assert done.returncode == 1
    return done.stderr


def is_retried(shell: Shell, script: str, *calls: str) -> None:
    said = fails(shell, script)
    for call in calls:
        assert call in said
    assert said.splitlines()[-1] == "To try these again as well: perdure resume x --retry-failed"
    before = sorted(shell.log())
    (shell.path / "repaired").touch()
    again = shell("resume", "x")
    assert again.returncode == 1
    assert sorted(shell.log()) == before
    assert again.stderr.splitlines()[-1] == said.splitlines()[-1]
    done = shell("resume", "x", "--retry-failed")
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr
    assert sorted(shell.log()) == sorted([*before, "work1", "work3"])
    # The whole journal fits: the tree is drawn of it.
    assert shell.json("show", "x")["status"] == "SUCCEEDED"


def test_children_whose_failures_were_collected(shell: Shell) -> None:
    is_retried(
        shell,
        GATHERED,
        "Its code has caught 2 failures that a resume does not try again:",
        "  w.child(n=1): ValueError: 1 is odd\n",
        "  w.child(n=3): ValueError: 3 is odd\n",
    )


def test_mapped_children_whose_failures_were_collected(shell: Shell) -> None:
    script = GATHERED.replace(
        "await asyncio.gather(*(child.aio(n) for n in range(4)), return_exceptions=True)",
        "[each async for each in perdure.map.aio(child, range(4), return_exceptions=True)]",
    )
    is_retried(shell, script, "  w.child(n=3): ValueError: 3 is odd\n")


def test_traces_whose_failures_were_collected(shell: Shell) -> None:
    is_retried(shell, TRACED, "  step(n=1): ValueError: 1 is odd\n")


def test_failures_that_a_child_has_collected(shell: Shell) -> None:
    """The failure of the child itself escaped, and is taken back by any resume; the failures below it are not."""
    is_retried(shell, INNER, "  w.child(n=1): ValueError: 1 is odd\n")


def test_failures_that_a_caught_child_has_collected(shell: Shell) -> None:
    is_retried(shell, INNER_CAUGHT, "  w.collects(): RuntimeError: 2 failed\n", "Its code has caught 3 failures")


def test_failures_that_a_child_in_a_pool_process_has_collected(shell: Shell) -> None:
    is_retried(shell, POOL, "  w.child(n=1): ValueError: 1 is odd\n")


def test_a_generator_whose_failure_was_caught_is_executed_as_a_whole(shell: Shell) -> None:
    said = fails(shell, HEAD + """
    @env.task
    def main() -> int:
        found = []
        try:
            found.extend(items())
        except ValueError:
            pass
        if len(found) < 3:
            raise RuntimeError("too few")
        return sum(found)
    """)  # fmt: skip
    assert "Its code has caught a failure that a resume does not try again:\n  items(): ValueError: 3 is odd\n" in said
    (shell.path / "repaired").touch()
    assert shell("resume", "x").returncode == 1
    done = shell("resume", "x", "--retry-failed")
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    assert shell.log() == ["work0", "work2", "work3"] * 2


def test_a_failure_that_escaped_is_tried_again_by_any_resume(shell: Shell) -> None:
    said = fails(shell, HEAD + """
    @env.task
    def main() -> int:
        return child(1)
    """)  # fmt: skip
    assert "has caught" not in said
    (shell.path / "repaired").touch()
    assert shell("resume", "x").stdout == "1\n"


def test_many_caught_failures_are_counted(shell: Shell) -> None:
    said = fails(shell, GATHERED.replace("range(4)", "range(20)"))
    assert "has caught 10 failures" in said
    assert said.count("ValueError") == 5
    assert "  and 5 more: perdure show x" in said


def test_failures_are_tried_again_in_named_runs_only(shell: Shell) -> None:
    done = shell("resume", "--all", "--retry-failed")
    assert done.returncode == 2
    assert "name the runs" in done.stderr


def test_a_recovering_run_executes_an_unfinished_generator_from_its_beginning(shell: Shell) -> None:
    """GI1: the new run may get other items."""
    shell.write("flow.py", HEAD + """
    @perdure.trace
    def numbers():
        for n in range(3):
            log(f"yield{n}")
            yield f"{os.getpid()}-{n}"

    @env.task
    def main() -> list[str]:
        found = []
        for item in numbers():
            found.append(item)
            if len(found) == 2 and not os.path.exists("repaired"):
                raise ValueError("stop")
        return found
    """)  # fmt: skip
    assert shell("run", "flow.py", "main", "--name", "x").returncode == 1
    (shell.path / "repaired").touch()
    done = shell("rerun", "x", "--recover")
    assert done.returncode == 0, done.stderr
    assert shell.log() == ["yield0", "yield1", "yield0", "yield1", "yield2"]
