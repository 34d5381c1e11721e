"""`perdure report`: the HTML that an action has written for people."""

from __future__ import annotations

import json
import os
import sys

from ..api.reports import report_file
from ..errors import UsageError
from .output import Output


def print_report(output: Output, run: str, action: str | None, file: str | None, show: bool) -> None:
    """Write the report of an action to a file, to stdout, or to a temporary file for the web browser.

    Raises:
        UsageError: there is no such report, several are meant, or the file cannot be written.
    """
    found = report_file(run, action)
    html = found.html()
    if file is None and show:
        import tempfile

        file = os.path.join(tempfile.mkdtemp(prefix="perdure-"), "report.html")
    if file is not None:
        try:
            with open(file, "w", encoding="utf-8") as target:
                target.write(html)
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror}") from None
        output.note(f"the report of {found.name} (action {found.action}) is in {file}")
    if show and file is not None:
        import webbrowser

        webbrowser.open(f"file://{os.path.abspath(file)}")
    elif output.json:
        print(json.dumps({"run": run, "task": found.name, "action": found.action, "html": html}))
    elif file is None:
        sys.stdout.write(html)
