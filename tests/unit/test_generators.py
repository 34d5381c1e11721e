"""A slice of each generator of `proof/generators`: random cases of a part of perdure, judged by the generator's oracle.

`python -m proof.generators NAME FIRST COUNT` tries more seeds.
"""

from __future__ import annotations

import importlib

import pytest
from proof.generators import NAMES

HISTORIES = {"bodies": 500, "replays": 500, "segments": 200, "schedules": 15}


@pytest.mark.parametrize("name", NAMES)
def test_random_cases_break_no_invariant(name: str) -> None:
    history = importlib.import_module(f"proof.generators.{name}").history
    for seed in range(HISTORIES[name]):
        history(seed)
