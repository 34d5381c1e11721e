"""Flyte"s clustered tasks: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.clustered",
    (
        "ClusterFailurePolicy",
        "ClusteredTaskEnvironment",
        "ClusteredTaskTemplate",
        "JaxRun",
        "Runtime",
        "TorchRun",
        "jax_initialize",
    ),
    "there is no cluster",
)
