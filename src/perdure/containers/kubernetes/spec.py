"""A pod's specification, as pure data.

A pod is created behind a *scheduling gate*: the pod exists, and no container starts before the gate is opened. So a
pod without a record was never started (`life`, K1).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ...errors import UsageError
from ..engine import ContainerSpec, Pull
from .template import MAIN, OWN
from .where import Where

DOWNLOAD: Final = "perdure-download"
UPLOAD: Final = "perdure-upload"
GATE: Final = "perdure/recorded"
MANAGED: Final = "app.kubernetes.io/managed-by"
STORE: Final = "perdure/store"
RUN: Final = "perdure/run"
ATTEMPT: Final = "perdure/attempt"
ABOUT: Final = "perdure/about"
SPEC: Final = "perdure/spec"
CLAIM: Final = "perdure/claim"

READY: Final = "/tmp/perdure-ready"
"""The file that the sidecar makes once SIGTERM is heard."""
SECRETS: Final = "perdure-secrets"
_PULL: Final[dict[Pull, str]] = {"missing": "IfNotPresent", "always": "Always", "never": "Never"}
_REFERENCE: Final = re.compile(r"\$(?=\$|\([-._a-zA-Z0-9]+\))")
_KEYS: Final = {"volumeMounts": "mountPath", "volumeDevices": "devicePath"}
"""The keys of list items, where the key is not the name."""


@dataclass(frozen=True)
class PodRequest:
    """The wanted pod."""

    name: str
    where: Where
    namespace: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    settings: ContainerSpec
    """With image, command and mere environment variables filled in."""
    pull: Pull
    input_dir: str
    output_dir: str
    inputs: str
    """The URL of the inputs' manifest."""
    outputs: str
    """The URL below which outputs go."""
    blobs: str
    """The URL of the bucket with the content of files."""
    secret_env: tuple[str, ...] = ()
    """Names of environment variables that are in the pod's Secret."""
    secret_files: tuple[str, ...] = ()
    """Paths of files that are in the pod's Secret."""
    deadline: float | None = None
    """Seconds after which the cluster itself ends the pod, in case no driver is left."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """The task's own."""
    copilot_env: Mapping[str, str] = field(default_factory=dict)
    """Addresses for the copilot's bucket, such as an endpoint; no credentials."""


def pod(request: PodRequest) -> dict[str, Any]:
    """The manifest.

    Raises:
        UsageError: Kubernetes lacks a requested setting.
    """
    ours = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "labels": {MANAGED: "perdure", **request.labels},
            "annotations": dict(request.annotations),
        },
        "spec": _spec(request),
    }
    theirs = merged(dict(request.where.template), dict(request.template))
    found = merged(theirs, ours)
    # The template's containers first: a mesh or a proxy is there before perdure's own use the network.
    return {**ours, "metadata": found["metadata"], "spec": found["spec"]}


def _spec(request: PodRequest) -> dict[str, Any]:
    where, settings = request.where, request.settings
    inputs = {"name": f"{OWN}inputs", "mountPath": request.input_dir}
    outputs = {"name": f"{OWN}outputs", "mountPath": request.output_dir}
    volumes: list[dict[str, Any]] = [
        {"name": f"{OWN}inputs", "emptyDir": {}},
        {"name": f"{OWN}outputs", "emptyDir": {}},
    ]
    mounts: list[dict[str, Any]] = [{**inputs, "readOnly": True}, outputs]
    if settings.shm is not None:
        volumes.append({"name": f"{OWN}shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(settings.shm)}})
        mounts.append({"name": f"{OWN}shm", "mountPath": "/dev/shm"})
    if request.secret_files:
        items = [{"key": f"file.{n}", "path": str(n), "mode": 0o444} for n, _ in enumerate(request.secret_files)]
        volumes.append({"name": SECRETS, "secret": {"secretName": request.name, "items": items}})
        for number, path in enumerate(request.secret_files):
            mounts.append({"name": SECRETS, "mountPath": path, "subPath": str(number), "readOnly": True})
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "schedulingGates": [{"name": GATE}],
        "terminationGracePeriodSeconds": where.grace,
        "automountServiceAccountToken": bool(where.service_account),
        "enableServiceLinks": False,
        "volumes": volumes,
        "initContainers": [
            _copilot(
                request, DOWNLOAD, ["download", request.inputs, request.input_dir, "--blobs", request.blobs], inputs
            ),
            {
                **_copilot(request, UPLOAD, ["upload", request.output_dir, request.outputs, "--ready", READY], outputs),
                "restartPolicy": "Always",
                # `main` begins after this probe: a sidecar that is told to end before listening would never know.
                "startupProbe": {
                    "exec": {"command": ["cat", READY]},
                    "periodSeconds": 1,
                    "timeoutSeconds": 5,
                    "failureThreshold": 120,
                },
            },
        ],
        "containers": [_main(request, mounts)],
    }
    if where.service_account is not None:
        spec["serviceAccountName"] = where.service_account
    if request.deadline is not None:
        spec["activeDeadlineSeconds"] = max(1, math.ceil(request.deadline))
    if settings.platform is not None:
        system, _, machine = settings.platform.partition("/")
        spec["nodeSelector"] = {"kubernetes.io/os": system, "kubernetes.io/arch": machine.partition("/")[0] or "amd64"}
    return spec


def _copilot(request: PodRequest, name: str, arguments: list[str], mount: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "image": request.where.copilot,
        "command": ["perdure", "copilot", *arguments],
        "env": [{"name": key, "value": value} for key, value in sorted(request.copilot_env.items())],
        "volumeMounts": [mount],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        # The last words are the reason of a failure, and are seen in the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if request.where.bucket_secret is not None:
        found["envFrom"] = [{"secretRef": {"name": request.where.bucket_secret}}]
    return found


def _main(request: PodRequest, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    settings = request.settings
    if settings.network is not None:
        raise UsageError(f"network={settings.network!r} means nothing on Kubernetes: use a network policy there")
    entrypoint, command = settings.entrypoint, settings.command
    if entrypoint == ():
        # Kubernetes takes an empty command for "the image's"; without a command, the arguments are the program.
        entrypoint, command = command, ()
    found: dict[str, Any] = {
        "name": MAIN,
        "image": settings.image,
        "imagePullPolicy": _PULL[request.pull],
        "volumeMounts": mounts,
        "env": [
            *({"name": key, "value": _literal(value)} for key, value in sorted(settings.env.items())),
            *(
                {"name": name, "valueFrom": {"secretKeyRef": {"name": request.name, "key": f"env.{name}"}}}
                for name in request.secret_env
            ),
        ],
    }
    if entrypoint:
        found["command"] = [_literal(text) for text in entrypoint]
    if command:
        found["args"] = [_literal(text) for text in command]
    if settings.workdir is not None:
        found["workingDir"] = settings.workdir
    amounts = {
        "cpu": f"{round(settings.cpu * 1000)}m" if settings.cpu is not None else None,
        "memory": str(settings.memory) if settings.memory is not None else None,
        "nvidia.com/gpu": str(settings.gpu) if settings.gpu else None,
    }
    limits = {name: amount for name, amount in amounts.items() if amount is not None}
    if limits:
        found["resources"] = {"limits": limits, "requests": dict(limits)}
    if settings.user is not None:
        found["securityContext"] = _user(settings.user)
    return found


def _literal(text: str) -> str:
    """Kubernetes replaces `$(NAME)` in commands and variables by an environment variable, and `$$` by `$`
    (k8s.io/kubernetes/third_party/forked/golang/expansion)."""
    return _REFERENCE.sub(r"$\g<0>", text)


def _user(user: str) -> dict[str, int]:
    number, _, group = user.partition(":")
    if not number.isdecimal() or (group and not group.isdecimal()):
        raise UsageError(f"user={user!r}: Kubernetes takes the number of a user, such as '1000' or '1000:1000'")
    return {"runAsUser": int(number), **({"runAsGroup": int(group)} if group else {})}


def secret(request: PodRequest, owner: str, env: Mapping[str, str], files: Mapping[str, bytes]) -> dict[str, Any]:
    """The pod's Secret, which goes when the pod does. `owner`: the pod's uid."""
    data = {f"env.{name}": env[name].encode("utf-8", "surrogateescape") for name in request.secret_env}
    data |= {f"file.{number}": files[path] for number, path in enumerate(request.secret_files)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "labels": {MANAGED: "perdure", **request.labels},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": request.name, "uid": owner}],
        },
        "type": "Opaque",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def merged(theirs: Any, ours: Any, key: str = "") -> Any:
    """Both merged; ours prevails. List items with a name (or a path) are matched by name."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        found = dict(theirs)
        for name, value in ours.items():
            found[name] = merged(found[name], value, name) if name in found else value
        return found
    if isinstance(theirs, list) and isinstance(ours, list):
        by = _KEYS.get(key, "name")
        if not all(isinstance(item, Mapping) and by in item for item in (*theirs, *ours)):
            return [*theirs, *(item for item in ours if item not in theirs)]
        last = {item[by]: item for item in ours}
        kept = [merged(item, last.pop(item[by]), "") if item[by] in last else item for item in theirs]
        return [*kept, *last.values()]
    return ours
