"""Flyte 2 in its local mode, quiet, without telemetry, its files in the directory of the case.

Local mode runs in the caller's process and recovers nothing after a kill: what it measures is the price of the same
declarations without durability.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read when flyte is imported.
os.environ.update(DO_NOT_TRACK="1", FLYTE_DISABLE_TELEMETRY="1")

import flyte

from _common import workdir

trace = flyte.trace
env = flyte.TaskEnvironment(name="bench")


@contextmanager
def local(options: argparse.Namespace) -> Iterator[Any]:
    """What runs a task here."""
    with workdir(options.dir) as directory:
        os.environ["HOME"] = str(directory)  # no configuration of the user's
        os.chdir(directory)
        flyte.init(log_level=40)
        runner = flyte.with_runcontext(mode="local", raw_data_path=str(directory / "raw"))
        runner._metadata_path = str(directory / "metadata")  # has no public name; without it: /tmp/flyte
        yield runner
