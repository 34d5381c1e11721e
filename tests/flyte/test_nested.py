"""`flyte.run` in the body of a task, and `flyte.remote.Run`."""

from __future__ import annotations

import pytest
from tests.flyte.scripts import Scripts

NESTED = """
from flyte.remote import Run

@env.task
def leaf(number: int) -> str:
    mark(f"n{number}")
    return f"{number} {flyte.ctx().custom_context}"

@env.task
async def failing() -> int:
    raise KeyError("inside")

@env.task
async def main() -> list[str]:
    run = await flyte.with_runcontext(custom_context={"a": "1"}).run.aio(leaf, 1)
    await run.wait.aio()
    found = [(await run.outputs.aio())[0], str(run.done())]
    try:
        await flyte.run.aio(failing)
    except flyte.errors.RuntimeUserError as error:
        found.append(error.code)
    return found

@env.task
def sync_main() -> list[str]:
    return [flyte.run(leaf, number).outputs()[0] for number in (2, 3)]

if __name__ == "__main__":
    import flyte.errors
    one = flyte.with_runcontext(name="one").run(main)
    print(one.outputs()[0])
    print(flyte.with_runcontext(name="two").run(sync_main).outputs()[0])
    print(Run.get("one").phase.value, sorted(run.name for run in Run.listall()), isinstance(one, Run))
"""


@pytest.mark.parametrize("kill_at", [0, 1, 2, 3])
def test_a_run_in_a_body_is_an_action_of_the_same_run(scripts: Scripts, kill_at: int) -> None:
    """The family: async and sync bodies, values for the call, a failed call, kills in each of the calls."""
    scripts.write(NESTED)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py").splitlines() == [
        "[\"1 {'a': '1'}\", 'True', 'KeyError']",
        "['2 {}', '3 {}']",
        "succeeded ['one', 'two'] True",
    ]
    steps = ["n1", "n2", "n3"]
    assert scripts.marks() == ([*steps[:kill_at], *steps[kill_at - 1 :]] if kill_at else steps)
