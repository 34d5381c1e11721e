"""A pod template: a user's additions to a pod."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any, Final

import yaml

from ...errors import UsageError

MAIN: Final = "main"
"""The container of the user's image."""
OWN: Final = "perdure-"
"""The prefix of the names of perdure's own containers and volumes."""


def read_template(source: Any, where: str) -> dict[str, Any]:
    """A pod template: a mapping like a pod's manifest, or the path of a YAML file."""
    if isinstance(source, (str, os.PathLike)):
        try:
            with open(os.path.expanduser(source), encoding="utf-8") as stream:
                found = yaml.safe_load(stream)
        except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:500]
            raise UsageError(f"{where}: the pod template {os.fspath(source)} cannot be read: {reason}") from None
    else:
        found = source
    if isinstance(found, dict) and "template" in found:  # a PodTemplate object, which holds no further PodTemplate
        found = found["template"]
    if not isinstance(found, dict) or not isinstance(found.get("spec") or {}, dict):
        raise UsageError(f"{where}: a pod template looks like a pod's manifest, with `metadata` and `spec`")
    unknown = sorted(str(key)[:50] for key in found.keys() - {"apiVersion", "kind", "metadata", "spec"})
    if unknown:
        raise UsageError(f"{where}: a pod template has `metadata` and `spec`, not {', '.join(unknown[:20])}")
    return {"metadata": found.get("metadata") or {}, "spec": found.get("spec") or {}}


def check_template(template: Mapping[str, Any], where: str, *data: str) -> None:
    """Raises `UsageError` where the template would keep the pod from its work.

    `data`: the directories of inputs and outputs.
    """
    spec = template.get("spec") or {}
    for part in ("containers", "initContainers", "volumes"):
        items = spec.get(part) or []
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise UsageError(f"{where}: {part} in its pod template must be a list of objects")
        for item in items:
            name = item.get("name")
            if not isinstance(name, str):
                raise UsageError(f"{where}: each of {part} in its pod template needs a name")
            if name.startswith(OWN):
                raise UsageError(f"{where}: the name {name!r} in its pod template is perdure's own: choose another")
    for container in spec.get("containers") or []:
        if container["name"] != MAIN:
            raise UsageError(
                f"{where}: container {container['name']!r} in its pod template would keep the pod from ending: put it "
                f"among initContainers with `restartPolicy: Always`. The task's own container is called {MAIN!r}"
            )
        told = sorted({"image", "command", "args", "imagePullPolicy"} & container.keys())
        if told:
            raise UsageError(f"{where}: {told[0]} of container {MAIN!r} comes from the task, not from its pod template")
        for mount in container.get("volumeMounts") or []:
            path = posixpath.normpath(str(mount.get("mountPath", "")))
            if path in data:
                raise UsageError(f"{where}: its pod template mounts something at {path}, where its data go")
