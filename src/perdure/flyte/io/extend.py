"""Encoders and decoders for more formats of data frames: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.io.extend",
    ("DataFrameDecoder", "DataFrameEncoder", "DataFrameTransformerEngine"),
    "data frames are Parquet files; pass other formats as a flyte.io.File",
)
