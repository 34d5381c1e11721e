"""Flyte"s prefetched models: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.prefetch",
    ("HuggingFaceModelInfo", "ShardConfig", "StoredModelInfo", "VLLMShardArgs", "hf_model"),
    "download the model in a task",
)
