"""Flyte 2's Python interface on perdure: scripts that say `import flyte` run unchanged, on this machine and durably.

A thin layer over perdure's public objects, one small module for each topic. Importing this package lets
`import flyte` find it, even where Flyte itself is installed. Functions of a cluster are absent: each can be imported,
and raises one sentence when used.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..api import flyte_alias

_HOMES = {
    "AMD_GPU": "_devices",
    "APPLE_SILICON": "_devices",
    "AppHandle": "_cluster",
    "AsyncFunctionTaskTemplate": "_task",
    "Backoff": "_settings",
    "BaseCheckpoint": "_checkpoint",
    "Cache": "_settings",
    "CachePolicy": "_settings",
    "CacheRequest": "_settings",
    "Checkpoint": "_checkpoint",
    "ConditionWebhook": "_conditions",
    "Cron": "_triggers",
    "Device": "_devices",
    "DeviceClass": "_devices",
    "Documentation": "_task",
    "Environment": "_environment",
    "FixedRate": "_triggers",
    "GPU": "_devices",
    "HABANA_GAUDI": "_devices",
    "Image": "_image",
    "ImageBuild": "_cluster",
    "Link": "_task",
    "Neuron": "_devices",
    "OnArtifact": "_triggers",
    "PodTemplate": "_pod",
    "Resources": "_resources",
    "RetryStrategy": "_settings",
    "ReusePolicy": "_resources",
    "Secret": "_resources",
    "SecretRequest": "_resources",
    "TPU": "_devices",
    "TaskEnvironment": "_environment",
    "TaskTemplate": "_task",
    "Timeout": "_settings",
    "TimeoutType": "_settings",
    "Trigger": "_triggers",
    "TriggerTime": "_triggers",
    "TriggeredArtifact": "_triggers",
    "TriggeredPartition": "_triggers",
    "build": "_cluster",
    "build_images": "_cluster",
    "ctx": "_context",
    "current_domain": "_init",
    "current_project": "_init",
    "custom_context": "_context",
    "custom_excepthook": "_init",
    "deploy": "_cluster",
    "get_custom_context": "_context",
    "group": "_context",
    "init": "_init",
    "init_from_api_key": "_init",
    "init_from_config": "_init",
    "init_in_cluster": "_init",
    "init_passthrough": "_init",
    "is_control_plane_available": "_init",
    "latest_checkpoint": "_checkpoint",
    "load_interactive_ctx": "_context",
    "load_plugin_config": "_cluster",
    "logger": "_init",
    "map": "_mapping",
    "new_condition": "_conditions",
    "rerun": "_runs",
    "run": "_runs",
    "run_python_script": "_cluster",
    "serve": "_cluster",
    "system_logger": "_init",
    "trace": "_context",
    "version": "_init",
    "with_runcontext": "_runs",
    "with_servecontext": "app._local",
}
_MODULES = (
    "ai", "app", "artifacts", "clustered", "config", "connectors", "durable", "errors", "extend", "extras", "git", "io",
    "models", "notify", "prefetch", "remote", "report", "sandbox", "storage", "syncify", "types",
)  # fmt: skip

__all__ = [*sorted(_HOMES), *_MODULES]

flyte_alias.install(first=True)


def __getattr__(name: str) -> Any:
    # Late, as in `perdure`: a script pays for the names that it uses.
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(f".{home}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{name}", __name__)
    elif name == "__version__":
        from ._init import version

        value = version()
    else:
        raise AttributeError(f"module 'flyte' has no attribute {name!r} (perdure.flyte answers for Flyte here)")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
