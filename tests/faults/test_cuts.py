"""P1, P2 while the connection to Postgres is cut: between any two messages, and after a commit whose answer is lost.

The family: every message of the protocol in a small workflow, in both directions, cut off before or after. `make test`
tries one in `SAMPLE`; `PERDURE_TEST_WHOLE=1` and `run_faults` try all of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.harness import Hosts
from tests.faults.cuts import cutting
from tests.postgres_server import Server, programs, server
from tests.stores import ON_POSTGRES

SAMPLE = 2 if os.environ.get("PERDURE_TEST_WHOLE") == "1" else 97
"""A prime number, as statements repeat."""

pytestmark = [
    pytest.mark.skipif(programs() is None, reason="needs a Postgres server (apt-get install postgresql)"),
    pytest.mark.skipif(ON_POSTGRES, reason="runs with the other suites"),
]


OUTAGES = 20 if os.environ.get("PERDURE_TEST_WHOLE") == "1" else 1


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Hosts]:
    """A host that has imported what Postgres needs."""
    found = Hosts(tmp_path, 1, {"PERDURE_TEST_STORE": "postgres"})
    yield found
    found.close()


def test_a_run_goes_on_when_its_connection_is_cut_at_any_message(warm: Hosts, tmp_path: Path) -> None:
    """P1, W1: nothing told of is executed again or lost, whether the server had committed or not."""
    with cutting(warm, tmp_path, server()) as cuts:
        count = cuts.messages()
        assert count > 300
        tried = [cuts.trial(number, bool(number % 2)) for number in range(0, count, SAMPLE)]
        assert sum(tried) > len(tried) / 2


def test_a_run_goes_on_when_its_server_ends_at_any_moment(warm: Hosts, tmp_path: Path) -> None:
    """P1, W1: an immediate or fast shutdown, or SIGKILL, and a server that is started again."""
    folder = programs()
    assert folder is not None
    own = Server(folder)
    try:
        with cutting(warm, tmp_path, own) as cuts:
            for number in range(OUTAGES):
                cuts.outage(random.Random(number))
    finally:
        own.close()
