"""Flyte's extension points for data frames: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.io.extend",
    ("DataFrameDecoder", "DataFrameEncoder", "DataFrameTransformerEngine"),
    "data frames of pandas, polars and pyarrow are stored as Parquet files",
)
