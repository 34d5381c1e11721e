"""How many examples a fuzz target tries: few in `make test`, many in `make test-long` (`PERDURE_TEST_FUZZ`).

Each target begins with the kept inputs of its directory in `corpus/`; `corpus/README.md` says what each input is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, example, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("PERDURE_TEST_FUZZ", "1"))
CPU_SECONDS = 5.0
"""CPU time for one example. Examples are small, so only a cost that grows faster than the input comes near."""


def examples(brief: int) -> settings:
    """The settings of a target that tries so many examples in `make test`."""
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(max_examples=brief * FACTOR, deadline=None, suppress_health_check=checks, print_blob=True)


CORPUS = Path(__file__).with_name("corpus")
Target = TypeVar("Target", bound=Callable[..., Any])


def kept(folder: str, argument: str = "data", read: Callable[[bytes], Any] = bytes, **others: Any) -> Any:
    """Try the kept inputs of a directory of the corpus first, in each run of the target.

    Args:
        folder: the directory.
        argument: the parameter that gets the content of a file, made by `read`.
        others: values of the other parameters.
    """
    files = sorted((CORPUS / folder).iterdir())
    assert files, f"the corpus has nothing in {folder}"

    def with_examples(target: Target) -> Target:
        for file in files:
            target = example(**{argument: read(file.read_bytes()), **others})(target)
        return target

    return with_examples


@contextmanager
def bounded() -> Iterator[None]:
    """The block takes little CPU time."""
    begun = time.thread_time()
    yield
    took = time.thread_time() - begun
    assert took < CPU_SECONDS, f"took {took:.1f} s"


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes that are nearly right: some replaced, removed, inserted or repeated."""
    edits = st.lists(
        st.tuples(st.integers(0, 1 << 16), st.integers(0, 4), st.binary(max_size=6), st.integers(0, 3)), max_size=4
    )
    return st.builds(_edited, whole, edits)


def _edited(data: bytes, edits: list[tuple[int, int, bytes, int]]) -> bytes:
    for place, length, new, times in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new * times + data[at + length :]
    return data
