"""Flyte"s storage."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.storage",
    (
        "ABFS",
        "GCS",
        "S3",
        "Storage",
        "exists",
        "exists_sync",
        "get",
        "get_configured_fsspec_kwargs",
        "get_random_local_directory",
        "get_random_local_path",
        "get_stream",
        "get_underlying_filesystem",
        "is_remote",
        "join",
        "open",
        "put",
        "put_stream",
    ),
    "use File and Dir",
)
