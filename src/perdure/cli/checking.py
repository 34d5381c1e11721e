"""`perdure check`: the static check of workflow code."""

from __future__ import annotations

import sys

import click

from .base import CliCommand, cli, common, output

CHECK_EPILOG = """  perdure check etl.py                       a file, with the modules beside it that it imports
  perdure check src/shop --format github     a package, with annotations in GitHub Actions
  perdure check etl.py --fix                 replace what can be replaced safely
  # perdure: ignore[clock]                   at the end of a line: leave this place alone"""


@cli.command("check", cls=CliCommand, epilog=CHECK_EPILOG, short_help="Find what a replay would do differently.")
@click.argument("paths", metavar="FILE_OR_PACKAGE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif", "github"]), default="text", show_default=True,
    help="For people, for programs, for code scanning, or for annotations in GitHub Actions.",
)  # fmt: skip
@click.option("--fix", is_flag=True, help="Replace what can be replaced safely, and show the rest.")
@common
def check_command(paths: tuple[str, ...], form: str, fix: bool) -> None:
    """Look for code that a replay would execute differently: clocks, random numbers, the environment, files, threads.

    The command reads the bodies of tasks, and the functions that they call. Nothing is imported. Exit code 1 if
    anything was found.
    """
    from ..testing import check as checking
    from ..testing.check.formats import FORMATS

    found = checking.check(*paths)
    if fix:
        left = checking.fix(found)
        output.note(f"replaced {len(found) - len(left)} of {len(found)} places")
        found = left
    if output.json:
        form = "json"
    shown = FORMATS[form](found)
    if shown:
        output.result(shown)
    if form == "text" and not fix:
        output.note(f"found {len(found)}" if found else "found nothing")
    sys.exit(1 if found else 0)
