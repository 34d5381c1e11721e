"""A slice of each generator of `proof/generators`: random cases of a part of perdure, judged by the generator's oracle.

`python -m proof.generators NAME FIRST COUNT` tries more seeds.
"""

from __future__ import annotations

import pytest
from proof.generators import MODULES, history_of

HISTORIES = {
    "attempts": 20, "bodies": 500, "collecting": 2, "containers": 2, "copies": 8, "endings": 15, "leaders": 25,
    "redactions": 20, "replays": 500, "schedules": 15, "segments": 200,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MODULES))
def test_random_cases_break_no_invariant(name: str) -> None:
    history = history_of(name)
    for seed in range(HISTORIES[name]):
        history(seed)
