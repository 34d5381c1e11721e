"""Names of inputs and outputs, and of their files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Final

from perdure.errors import UsageError

ERROR_FILE: Final = "_ERROR"
"""The file in the output directory by which a container reports a failure."""

METADATA_FILES: Final = {"JSON": "inputs.json", "YAML": "inputs.yaml", "PROTO": "inputs.pb"}

_RESERVED: Final = frozenset({ERROR_FILE.casefold(), *METADATA_FILES.values()})
_NAME: Final = re.compile(r"[\w-][\w.-]*")


def check_variables(names: Iterable[str], what: str) -> None:
    """Refuse names of inputs or outputs (`what`) that could not name files beside each other.

    Raises:
        UsageError: such a name; or an output that could be taken for another output.
    """
    known = list(names)
    for name in known:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not _fits(name):
            raise UsageError(
                f"{what} name {name!r} cannot be the name of a file: use letters, digits, `_`, `-` and `.`, and none "
                f"that begins with `.`"
            )
        if name.casefold() in _RESERVED:
            raise UsageError(f"{what} name {name!r} is the name of a file that perdure itself uses: choose another")
    if what == "output":
        for name in known:
            for other in known:
                if other.startswith(f"{name}."):
                    raise UsageError(
                        f"output {other!r} could be taken for output {name!r}, which may come as `{name}.*`: rename one"
                    )


def check_key(key: str) -> None:
    """Refuse the key of a dict that cannot name a file in a directory."""
    if key in ("", ".", "..") or "/" in key or "\0" in key or not _fits(key):
        raise UsageError(
            f"dict key {key!r} cannot be the name of a file: use keys without `/`, of 1 to 255 bytes, other than `.` "
            f"and `..`"
        )


def _fits(name: str) -> bool:
    try:
        return 0 < len(name.encode("utf-8")) <= 255
    except UnicodeEncodeError:
        return False


def distinct(names: Sequence[str | None]) -> list[str]:
    """File names for the items of a list: an item's own name, else the position.

    The first item of a name keeps the name. Later items are numbered (`a.txt`, `a-1.txt`, ...), past every name in
    the list.
    """
    taken = {name for name in names if name is not None}
    kept: set[str] = set()
    answer: list[str] = []
    for position, name in enumerate(names):
        wanted = str(position) if name is None else name
        if wanted in (taken if name is None else kept):
            wanted = _numbered(wanted, taken)
        kept.add(wanted)
        taken.add(wanted)
        answer.append(wanted)
    return answer


def _numbered(name: str, taken: set[str]) -> str:
    stem, suffix = os.path.splitext(name)
    number = 1
    while True:
        ending = f"-{number}{suffix}"
        room = 255 - len(os.fsencode(ending))
        if room <= 0:  # a suffix as long as a name may be
            stem, suffix = name, ""
            continue
        found = os.fsdecode(os.fsencode(stem)[:room]) + ending
        if found not in taken:
            return found
        number += 1
