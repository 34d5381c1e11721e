"""The command that compares two runs: `perdure compare`."""

from __future__ import annotations

import click

from . import completion
from .base import CliCommand, cli, common, output

COMPARE_EPILOG = """  perdure compare daily-1 daily-2                         what differs, and where the journals part
  perdure compare daily-1 daily-2 --json | jq .parts      the first place with another call"""


@cli.command("compare", cls=CliCommand, epilog=COMPARE_EPILOG, short_help="Two runs side by side.")
@click.argument("a", metavar="RUN", shell_complete=completion.run_names)
@click.argument("b", metavar="RUN", shell_complete=completion.run_names)
@common
def compare_command(a: str, b: str) -> None:
    """Compare two runs: inputs, outcomes, the time of their actions by name, and the calls in which their journals
    differ. A call is known by its place in the code; when it was recorded is no difference."""
    from ..api.comparing import compared
    from .compared import SHOWN, comparison_data
    from .output import run_data, span

    found = compared(a, b)
    data = comparison_data(found)
    if output.json:
        output.result_json({"a": run_data(found.a.run), "b": run_data(found.b.run), **data})
        return
    lines = [data["sentence"]]
    lines += [f"input {one['name']}: {one['a']} | {one['b']}" for one in data["inputs"] if one["a"] != one["b"]]
    lines.append(f"outcome: {data['outcome']['a']} | {data['outcome']['b']}")
    for one in data["times"]:
        parts = [
            f"{side['count']} in {span(int(side['time'] * 1e6))}" if side else "none" for side in (one["a"], one["b"])
        ]
        lines.append(f"time of {one['name']}: {parts[0]} | {parts[1]}")
    for one in data["differences"]:
        parts = [
            f"{side['entry']} {side['name']}: {side['outcome']}" if side else "none" for side in (one["a"], one["b"])
        ]
        lines.append(f"{one['what']}: {parts[0]} | {parts[1]}")
    output.result("\n".join(line.replace("\n", " ") for line in lines))
    if data["total"] > SHOWN:
        output.note(f"{data['total'] - SHOWN:,} further differences are left out")
