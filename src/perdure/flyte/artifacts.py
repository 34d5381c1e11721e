"""Flyte"s artifacts: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.artifacts",
    (
        "KIND_KEY",
        "MAX_PARENTS",
        "Artifact",
        "ArtifactKey",
        "ArtifactVersionId",
        "Card",
        "CardFormat",
        "CardType",
        "Granularity",
        "Kind",
        "Metadata",
        "TimePartition",
        "new",
        "produces",
    ),
    "keep data in a File or Dir",
)
