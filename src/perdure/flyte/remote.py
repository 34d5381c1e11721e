"""Flyte"s remote objects: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.remote",
    (
        "Action",
        "ActionDetails",
        "ActionInputs",
        "ActionOutputs",
        "App",
        "Artifact",
        "Condition",
        "PartitionSchema",
        "Project",
        "Run",
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
        "auth_metadata",
        "upload_dir",
        "upload_file",
    ),
    "there is no cluster; look at runs with perdure.Run.get(NAME) and perdure ls",
)
