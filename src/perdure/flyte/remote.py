"""Flyte's remote objects: runs of the store in use; the others are absent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ._absent import absent_names
from ._handles import ActionOutputs, Run


@contextlib.contextmanager
def auth_metadata(*pairs: tuple[str, str]) -> Iterator[None]:
    """Headers for the requests to a cluster: there are none here."""
    yield


__getattr__ = absent_names(
    "flyte.remote",
    (
        "Action",
        "ActionDetails",
        "ActionInputs",
        "App",
        "Artifact",
        "Condition",
        "PartitionSchema",
        "Project",
        "RunDetails",
        "Secret",
        "SecretTypes",
        "Settings",
        "Task",
        "TaskDetails",
        "TimeFilter",
        "Trigger",
        "TriggerDetails",
        "User",
        "upload_dir",
        "upload_file",
    ),
    "there is no cluster; look at runs with perdure.Run.get(NAME) and perdure ls",
)

__all__ = ["ActionOutputs", "Run", "auth_metadata"]
