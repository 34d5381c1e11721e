"""The public names: everything that `__all__` promises can be fetched, in a fresh interpreter and in any order."""

from __future__ import annotations

import subprocess
import sys

import pytest

import perdure


@pytest.mark.parametrize("name", perdure.__all__)
def test_every_public_name_can_be_fetched_by_itself(name: str) -> None:
    """Family: a lazy name whose home module has moved. Each is fetched first in a process of its own."""
    script = f"import perdure; perdure.{name}; from perdure import {name}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        perdure.nonsense  # noqa: B018


@pytest.mark.parametrize(
    "place",
    [
        "errors.ConditionTimedoutError",
        "errors.UsageError",
        "extras.durable_sleep",
        "extras.ContainerTask",
        "durable.now",
    ],
)
def test_a_name_of_a_submodule_is_told_with_its_place(place: str) -> None:
    """Family: a public name that is asked of `perdure` itself, and lives in a submodule."""
    with pytest.raises(AttributeError, match=f"; it is perdure.{place}$"):
        getattr(perdure, place.partition(".")[2])


@pytest.mark.parametrize("name", ["__wrapped__", "_errors", "nonsense"])
def test_a_name_that_no_submodule_promises_gets_no_hint(name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'$"):
        getattr(perdure, name)
