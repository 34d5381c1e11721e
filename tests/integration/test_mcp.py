"""`perdure mcp`: tasks as tools, with the client of the `mcp` package over stdin and stdout.

MC1, MC2.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from tests.waiting import wait_for_async

EXAMPLE = Path(__file__).parents[2] / "examples" / "mcp_tools.py"

MORE = """
import os
import pathlib

pathlib.Path("pid").write_text(str(os.getpid()))


@perdure.trace
def slow_step() -> str:
    with open("log", "a") as log:
        log.write("step\\n")
    print("printed by a task")
    return "done"


@env.task
async def slow() -> str:
    found = await slow_step.aio()
    await (await perdure.new_condition.aio("go")).wait.aio()
    return found


@env.task
def fails(run_name: str) -> None:
    raise ValueError(f"no {run_name}")
"""


def server(directory: Path, wait: str = "60s") -> StdioServerParameters:
    if not (directory / "tools.py").exists():
        shutil.copy(EXAMPLE, directory / "tools.py")
        with (directory / "tools.py").open("a") as file:
            file.write(MORE)
    env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    args = ["-m", "perdure", "mcp", "tools.py", "--wait", wait]
    return StdioServerParameters(command=sys.executable, args=args, cwd=directory, env=env)


def test_a_task_is_a_tool_with_the_schema_of_its_inputs(tmp_path: Path) -> None:
    async def main() -> None:
        async with Client(server(tmp_path)) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"bank.pay", "bank.balance", "bank.slow", "bank.fails", "perdure_result"}
            balance = tools["bank.balance"]
            assert balance.description == "The balance of an account."
            assert balance.input_schema["properties"]["cents"] == {"type": "boolean"}
            assert balance.input_schema["required"] == ["account"]
            assert "perdure_run_name" in tools["bank.fails"].input_schema["properties"]
            found = await client.call_tool("bank.balance", {"account": "ann", "cents": True})
            assert found.structured_content["result"] == "ann has 700 cents"
            wrong = await client.call_tool("bank.balance", {"account": 7})
            assert wrong.is_error
            assert "input 'account' of bank.balance is str" in wrong.content[0].text
            failed = await client.call_tool("bank.fails", {"run_name": "x"})
            assert failed.is_error
            assert failed.structured_content["error"] == {"type": "ValueError", "message": "no x"}
            unknown = await client.call_tool("perdure_result", {"run_name": "stranger"})
            assert unknown.is_error

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_person_is_asked_and_the_model_is_not(tmp_path: Path, mode: Any) -> None:
    """MC2: with the requests of the server in old protocols, and with answers that ask for input in new ones."""
    asked: list[Any] = []

    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"ok": len(asked) == 1, "why": "too much"})

    async def main() -> None:
        async with Client(server(tmp_path), mode=mode, elicitation_callback=answer) as client:
            first = await client.call_tool("bank.pay", {"amount": 70, "run_name": "one"})
            assert first.structured_content["result"] == "paid 70 EUR"
            second = await client.call_tool("bank.pay", {"amount": 80})
            assert second.structured_content["result"] == "refused: too much"

    asyncio.run(main())
    assert asked == ["Pay 70 EUR?", "Pay 80 EUR?"]


def waits(directory: Path) -> bool:
    """Whether run `nightly` waits for its condition."""
    words = [sys.executable, "-m", "perdure", "conditions", "--json"]
    found = subprocess.run(words, capture_output=True, text=True, cwd=directory, check=False, timeout=60)
    return found.returncode == 0 and "nightly" in found.stdout


def test_a_call_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    """MC1: the first call dies with the server; the repeated call, and a look by name, join its run."""

    async def main() -> None:
        # Each transport has an error of its own for a lost server.
        with pytest.raises(Exception):  # noqa: B017, PT011, PT012
            async with Client(server(tmp_path)) as client:
                call = asyncio.create_task(client.call_tool("bank.slow", {"run_name": "nightly"}))
                # The step has its outcome on disk once the run waits.
                await wait_for_async(lambda: waits(tmp_path))
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
                await call
        async with Client(server(tmp_path, wait="0s")) as client:
            again = await client.call_tool("bank.slow", {"run_name": "nightly"})
            assert again.structured_content["status"] != "SUCCEEDED"
            assert "perdure_result" in again.structured_content["next"]
        async with Client(server(tmp_path)) as client:
            done = await signalled(client, tmp_path)
            assert done.structured_content["result"] == "done"

    async def signalled(client: Client, directory: Path) -> Any:
        call = asyncio.create_task(client.call_tool("perdure_result", {"run_name": "nightly"}))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "perdure", "signal", "nightly", "go", "true", cwd=directory
        )
        assert await process.wait() == 0
        return await call

    asyncio.run(main())
    assert (tmp_path / "log").read_text() == "step\n"
