"""Operations on all runs that fit the filters of the list: the page with the count, and what its form does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..api import bulk
from ..cli.output import iso
from ..errors import InputError
from .filters import filter_of, filter_texts, number
from .resumed import followed
from .settings import UiSettings

MOST: Final = 1_000
"""Runs that a form changes at most."""
MOST_DRIVEN: Final = 100
"""Runs that a form resumes at most, because this process drives them."""
LOOKS: Final = 20_000
"""Runs that a count looks at, so that the page never takes long."""
SHOWN: Final = 20
"""Names of runs on the page of the count."""


def _plan(operation: str, texts: Mapping[str, str], below: int | None) -> bulk.BulkPlan:
    most = MOST_DRIVEN if operation == "resume" else MOST
    return bulk.planned(operation, filter_of(texts), below=below, looks=LOOKS, most=most)


def bulk_page(ui: UiSettings, asked: Mapping[str, str]) -> dict[str, Any]:
    """What an operation on all runs of the filters would do: the dry count, and the form that does it."""
    operation, texts = asked.get("operation", ""), filter_texts(asked)
    plan = _plan(operation, texts, None)
    found = plan.bulk
    return {
        "operation": operation,
        "filters": texts,
        "sentence": str(found),
        "matching": found.matching,
        "count": len(found.names),
        "names": found.names[:SHOWN],
        "left": found.left,
        "below": plan.below,
        "reached": iso(plan.reached),
        "more": plan.full,
    }


def carry_out(operation: str, form: Mapping[str, str]) -> bulk.Bulk:
    """Do what the page has counted.

    Raises:
        InputError: more runs would be changed than the page has counted; nothing was done.
        UsageError: the form means nothing.
    """
    texts = filter_texts(form)
    counted, below = number(form.get("count", ""), "count"), number(form.get("below", ""), "below")
    plan = _plan(operation, texts, below)
    if len(plan.bulk.names) > counted:
        raise InputError(
            f"nothing was done, because the runs have changed: {len(plan.bulk.names):,} runs instead of {counted:,} "
            "would be changed now. Look at the new count"
        )
    done, handles = bulk.carried_out(plan, filter_of(texts), reason=form.get("reason", ""))
    return done._replace(refused={**done.refused, **followed(handles)})
