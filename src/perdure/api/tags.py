"""Tags of runs: names with values, both text, chosen by the caller and kept with the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..errors import UsageError

MOST = 50
"""Tags of one run."""
LONGEST = 200
"""Characters of the name or value of a tag."""


def encode_tags(tags: Mapping[str, str] | None) -> str | None:
    """Tags as stored.

    Raises:
        UsageError: the tags cannot be kept.
    """
    if not tags and (tags is None or isinstance(tags, Mapping)):
        return None
    check_tags(tags)
    assert tags is not None
    if len(tags) > MOST:
        raise UsageError(f"a run has at most {MOST} tags, not {len(tags)}")
    return msgspec.json.encode(dict(sorted(tags.items()))).decode()


def check_tags(tags: Any) -> None:
    """Check that names and values of tags are short text, the names without `=`.

    Raises:
        UsageError: they are not.
    """
    if not isinstance(tags, Mapping):
        raise UsageError(f"tags must map names to text, not {tags!r}")
    for name, value in tags.items():
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST or "=" in name or not name.isprintable():
            raise UsageError(f"a tag's name is text of 1 to {LONGEST} characters without '=', not {name!r}")
        if not isinstance(value, str) or len(value) > LONGEST or not value.isprintable():
            raise UsageError(f"the value of tag {name!r} must be text of at most {LONGEST} characters, not {value!r}")


def decode_tags(stored: str | None) -> dict[str, str]:
    """Stored tags; a damaged row has none."""
    if stored is None:
        return {}
    try:
        return msgspec.json.decode(stored, type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def tags_of_words(words: Sequence[str]) -> dict[str, str] | None:
    """Tags from words of a command line, each `NAME=VALUE`; no word makes no tags.

    Raises:
        UsageError: a word is not of that form, or names a tag a second time with another value.
    """
    found: dict[str, str] = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not name:
            raise UsageError(f"a tag is given as NAME=VALUE, not {word!r}")
        if found.setdefault(name, value) != value:
            raise UsageError(f"tag {name!r} is given twice: {found[name]!r} and {value!r}")
    return found or None
