"""Flyte's artifacts: outputs can be declared as artifacts; there is no registry that would keep the declarations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from ._absent import absent_names
from ._notes import note
from .io import DataFrame, Dir, File

T = TypeVar("T")
Granularity = Literal["hour", "day", "week", "month"]
Kind = Literal["model", "data", "generic"]
CardType = Literal["model", "data", "generic"]
CardFormat = Literal["html", "md", "json", "yaml", "csv", "tsv", "png", "jpg", "jpeg"]
KIND_KEY = "flyte.io/kind"
MAX_PARENTS = 32


@dataclass(frozen=True)
class TimePartition:
    """A partition by time."""

    value: date | datetime
    granularity: Granularity = "day"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A description for people: recorded only."""

    uri: str
    format: CardFormat = "html"
    card_type: CardType = "generic"

    @classmethod
    def create_from(
        cls,
        *,
        content: str | None = None,
        local_path: Path | None = None,
        format: CardFormat = "html",
        card_type: CardType = "generic",
    ) -> Card:
        """A card with the path of the content."""
        return cls(uri=str(local_path or ""), format=format, card_type=card_type)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """An artifact's name and properties: recorded only."""

    name: str
    version: str | None = None
    description: str | None = None
    attrs: Mapping[str, str] | None = None
    card: Card | None = None
    kind: Kind | None = None
    partitions: Mapping[str, Any] | None = None
    parents: tuple[Any, ...] | None = None
    version_from_content: bool = False

    @classmethod
    def create_model_metadata(
        cls,
        *,
        name: str,
        version: str | None = None,
        description: str | None = None,
        card: Card | None = None,
        attrs: Mapping[str, str] | None = None,
        partitions: Mapping[str, Any] | None = None,
        **properties: Any,
    ) -> Metadata:
        """The metadata of a model; `properties` such as the framework become attributes."""
        texts = {key: str(value) for key, value in properties.items() if value is not None}
        return cls(
            name=name, version=version, description=description, card=card, kind="model",
            attrs={**texts, **(attrs or {})}, partitions=partitions,
        )  # fmt: skip


def new(obj: T, metadata: Metadata) -> T:
    """The value itself: nothing is published.

    Raises:
        TypeError: the value is no File, Dir or DataFrame.
    """
    if not isinstance(obj, (File, Dir, DataFrame)):
        raise TypeError(f"a value of type {type(obj).__name__} cannot be an artifact: use a File, a Dir or a DataFrame")
    note("artifacts", f"artifact {metadata.name}")
    return obj


@contextlib.contextmanager
def produces(**outputs: Metadata) -> Iterator[None]:
    """Declare outputs of a called task as artifacts: nothing is published."""
    for metadata in outputs.values():
        note("artifacts", f"artifact {metadata.name}")
    yield


__getattr__ = absent_names(
    "flyte.artifacts",
    ("Artifact", "ArtifactKey", "ArtifactVersionId"),
    "there is no registry of artifacts; keep data in a File or Dir",
)

__all__ = [
    "KIND_KEY", "MAX_PARENTS", "Card", "CardFormat", "CardType", "Granularity", "Kind", "Metadata", "TimePartition",
    "new", "produces",
]  # fmt: skip
