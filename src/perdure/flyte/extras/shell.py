"""Flyte's shell tasks: absent."""

from __future__ import annotations

from .._absent import absent_names

__getattr__ = absent_names(
    "flyte.extras.shell",
    (
        "DictMode",
        "FlagSpec",
        "Glob",
        "OutputSpec",
        "Stderr",
        "Stdout",
        "create",
        "listMode",
    ),
    "a container's command is a ContainerTask",
)
