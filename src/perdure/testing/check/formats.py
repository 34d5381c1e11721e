"""Findings as text, JSON, SARIF 2.1.0, and annotations for GitHub Actions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from ... import __version__
from .finding import CheckFinding
from .rules import RULES


def text(findings: Sequence[CheckFinding]) -> str:
    """A line for each finding."""
    return "\n".join(f"{one.path}:{one.line}: {one.rule}: {one.message}. Instead: {one.instead}" for one in findings)


def as_json(findings: Sequence[CheckFinding]) -> str:
    """A list of objects."""
    return json.dumps([one._asdict() for one in findings], indent=1)


def github(findings: Sequence[CheckFinding]) -> str:
    """Commands that GitHub Actions shows at the lines of a pull request."""
    return "\n".join(
        f"::error file={one.path},line={one.line},col={one.column + 1},title=perdure {one.rule}::"
        + f"{one.message}. Instead: {one.instead}".replace("%", "%25").replace("\n", "%0A")
        for one in findings
    )


def sarif(findings: Sequence[CheckFinding]) -> str:
    """A log for code scanning."""
    rules = [
        {"id": rule.name, "shortDescription": {"text": rule.what}, "help": {"text": f"{rule.reason}; {rule.instead}"}}
        for rule in RULES
    ]
    tool: dict[str, Any] = {"driver": {"name": "perdure check", "version": __version__, "rules": rules}}
    results = [_result(one) for one in findings]
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [{"tool": tool, "results": results}]}, indent=1)


def _result(one: CheckFinding) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": one.path.replace(os.sep, "/")},
        "region": {"startLine": one.line, "startColumn": one.column + 1},
    }
    message = f"{one.message}. Instead: {one.instead}"
    return {
        "ruleId": one.rule,
        "level": "error",
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
    }


FORMATS = {"text": text, "json": as_json, "sarif": sarif, "github": github}
