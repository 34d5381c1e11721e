"""`python -m perdure.testing.conformance URL`: attack the promises of a store, and print a table.

The exit code is 1 where a promise is violated, and 2 where the store cannot be attacked.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...errors import PerdureError
from .checking import PROMISES, ConformanceReport, check
from .own import PerdureSystem


def main() -> int:
    """Read the arguments, check, and print."""
    arguments = _parser().parse_args()
    promises = arguments.only.split(",") if arguments.only else list(PROMISES)
    unknown = [promise for promise in promises if promise not in PROMISES]
    if unknown:
        print(f"Error: no promise {', '.join(unknown)}; the kit attacks {', '.join(PROMISES)}", file=sys.stderr)
        return 2
    try:
        system = PerdureSystem(arguments.url, opener=arguments.open, image=arguments.image)
        report = check(
            system, promises=promises, sample=arguments.sample, seed=arguments.seed, jobs=arguments.jobs,
            keep=arguments.keep, tell=(lambda text: print(text, file=sys.stderr)) if arguments.verbose else _silent,
        )  # fmt: skip
    except PerdureError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return shown(report, as_json=arguments.json)


def shown(report: ConformanceReport, *, as_json: bool) -> int:
    """Print a report; the exit code."""
    print(json.dumps(report.data()) if as_json else report.table())
    return 0 if report.holds else 1


def _silent(_: str) -> None:
    pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m perdure.testing.conformance", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("url", help="the store: sqlite:///path, postgresql://..., or memory:; its runs stay in it")
    parser.add_argument("--only", default="", metavar="P1,P2", help="attack these promises alone")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="try one in N moments of each attack")
    parser.add_argument("--seed", type=int, default=1, help="decides random moments and samples")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="histories at a time")
    parser.add_argument("--open", default="", metavar="MODULE:FUNCTION", help="opens the store of another author")
    parser.add_argument("--image", default="", help="an image with a shell, for attacks on containers")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="keep what violated histories left")
    parser.add_argument("--verbose", action="store_true", help="tell of each history on stderr")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
