"""Named statements and numbered migrations, read from the `.sql` files beside this module.

A statement begins at a line `-- name: some_name`; the comment lines under it say what it does. A migration is a file
`NNNN_title.sql`; it is applied once, whole, in order of its number, and never edited after a release.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple, cast

if TYPE_CHECKING:
    from importlib.abc import ResourceLoader

_NAME: Final = "-- name: "


class Migration(NamedTuple):
    """One step of a schema."""

    version: int
    """The schema's version once it is applied."""
    statements: tuple[str, ...]


def queries(dialect: str) -> dict[str, str]:
    """The named statements of `<dialect>/queries.sql`, without their comments."""
    found: dict[str, str] = {}
    head, *blocks = _read(dialect, "queries.sql").split(_NAME)
    assert not _strip(head), "SQL in front of the first name"
    for block in blocks:
        name, _, body = block.partition("\n")
        assert name not in found, f"two statements named {name}"
        found[name] = _strip(body).removesuffix(";")
    return found


def migrations(dialect: str, files: tuple[str, ...]) -> list[Migration]:
    """The migrations in `<dialect>/migrations`; the adapter names its files, as packages in a zip list none."""
    steps = []
    for version, file in enumerate(files, 1):
        assert file.startswith(f"{version:04}_"), f"migration {file} is not number {version}"
        statements = _strip(_read(dialect, os.path.join("migrations", file))).split(";\n")
        steps.append(Migration(version, tuple(statement for part in statements if (statement := part.rstrip("; \n")))))
    return steps


def _read(dialect: str, name: str) -> str:
    # What `importlib.resources` comes down to. Importing that package alone takes as long as opening a store does
    # (tempfile, random, hashlib and more), and it would be imported for nothing else.
    path = os.path.join(os.path.dirname(__file__), dialect, name)
    return cast("ResourceLoader", __spec__.loader).get_data(path).decode()


def _strip(sql: str) -> str:
    return "\n".join(line for line in sql.splitlines() if line and not line.startswith("--")).strip()
