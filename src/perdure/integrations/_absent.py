"""The message for a package that an integration needs and that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UsageError


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """The imports in this block need an extra of perdure.

    Raises:
        UsageError: a package is not installed; the message says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "perdure":
            raise
        raise UsageError(
            f"{what} needs {error.name.partition('.')[0]}, which is not installed: pip install 'perdure[{extra}]'"
        ) from error
