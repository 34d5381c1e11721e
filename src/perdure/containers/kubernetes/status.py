"""What a pod's status says of the attempt, as a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from .spec import DOWNLOAD, GATE, UPLOAD
from .template import MAIN


class Step(Enum):
    """How far it has come."""

    GATED = auto()
    """It is recorded, perhaps, and no container of it has started."""
    PENDING = auto()
    """The main container has not begun."""
    RUNNING = auto()
    UPLOADING = auto()
    """The main container has ended, and its outputs are on their way."""
    ENDED = auto()
    """Nothing of it runs any more, and how the main container ended is known."""
    UNPREPARED = auto()
    """An init container has failed, so that the main container never began."""
    REFUSED = auto()
    """It can never start: something in its specification is wrong."""
    NO_IMAGE = auto()
    TIMED_OUT = auto()
    """The cluster has ended it at its deadline."""
    LOST = auto()
    """Its node, or the cluster, has ended it."""


class Look(NamedTuple):
    """A pod at one moment."""

    step: Step
    reason: str = ""
    """In the cluster's words, where something is wrong."""
    exit_code: int = 0
    oom_killed: bool = False
    uploaded: int | None = None
    """The exit code of the copilot that took the outputs away; `None`: it has not ended, or nothing is known of it."""


_NO_IMAGE: Final = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff", "ImageInspectError", "SignatureValidationFailed"}
)
_REFUSED: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_START_FAILED: Final = frozenset({"StartError", "ContainerCannotRun"})
_DISRUPTED: Final = "DisruptionTarget"


def look(pod: Mapping[str, Any]) -> Look:
    """What the pod of an attempt is at."""
    status = pod.get("status") or {}
    phase = status.get("phase", "")
    main = _container(status, "containerStatuses", MAIN)
    ended = _terminated(main)
    leaving = pod["metadata"].get("deletionTimestamp") is not None
    lost = _lost(status, leaving)
    over = phase in ("Succeeded", "Failed")
    if ended is not None and not (lost and ended.get("exitCode")):
        return _main_ended(ended, status, over, main)
    if over and status.get("reason") == "DeadlineExceeded":
        return Look(Step.TIMED_OUT, _told(status))
    if lost and (over or ended is not None):
        return Look(Step.LOST, lost)
    failed = next(_failed_before(status), None)
    if failed is not None and ended is None:
        return failed
    if over:
        return Look(Step.LOST, _told(status) or f"it is {phase}, and nobody knows how its container ended")
    if any(gate.get("name") == GATE for gate in pod["spec"].get("schedulingGates") or ()):
        return Look(Step.GATED)
    if (main.get("state") or {}).get("running") is not None:
        return Look(Step.RUNNING)
    return _pending(status)


def _main_ended(ended: Mapping[str, Any], status: Mapping[str, Any], over: bool, main: Mapping[str, Any]) -> Look:
    code = int(ended.get("exitCode", 0))
    reason = str(ended.get("reason", ""))
    if reason in _START_FAILED:
        return Look(Step.REFUSED, _of_state("main", ended))
    upload = _terminated(_container(status, "initContainerStatuses", UPLOAD))
    done = over or upload is not None
    said = ""
    if upload is not None and upload.get("exitCode"):
        said = str(upload.get("message", "")).strip() or str(upload.get("reason", ""))
    return Look(
        Step.ENDED if done else Step.UPLOADING,
        said,
        code,
        reason == "OOMKilled",
        int(upload["exitCode"]) if upload is not None and "exitCode" in upload else None,
    )


def _lost(status: Mapping[str, Any], leaving: bool) -> str:
    """Why the cluster has ended it; empty: it has not."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == _DISRUPTED and condition.get("status") == "True":
            return f"{condition.get('reason', _DISRUPTED)}: {condition.get('message', '')}".rstrip(": ")
    reason = status.get("reason", "")
    if reason and reason != "DeadlineExceeded":
        return _told(status)
    return "the pod was deleted" if leaving else ""


def _failed_before(status: Mapping[str, Any]) -> Iterator[Look]:
    """Init containers that have failed."""
    for container in status.get("initContainerStatuses") or ():
        ended = _terminated(container)
        if container["name"] != UPLOAD and ended is not None and ended.get("exitCode"):
            who = "the copilot could not bring its inputs" if container["name"] == DOWNLOAD else container["name"]
            yield Look(Step.UNPREPARED, _of_state(who, ended), int(ended["exitCode"]))


def _pending(status: Mapping[str, Any]) -> Look:
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        told = _of_state(f"container {container['name']}", waiting)
        if reason in _NO_IMAGE:
            return Look(Step.NO_IMAGE, told)
        if reason in _REFUSED:
            return Look(Step.REFUSED, told)
        if reason not in ("", "PodInitializing", "ContainerCreating"):
            return Look(Step.PENDING, told)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Look(Step.PENDING, f"{condition.get('reason', '')}: {condition.get('message', '')}")
    return Look(Step.PENDING)


def _container(status: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    return next((one for one in status.get(kind) or () if one.get("name") == name), {})


def _terminated(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (container.get("state") or {}).get("terminated")
    return found


def _of_state(who: str, state: Mapping[str, Any]) -> str:
    message = str(state.get("message", "")).strip()
    parts = [who, str(state.get("reason", "")), message]
    if "exitCode" in state and not message:
        parts.append(f"exit code {state['exitCode']}")
    return ": ".join(part for part in parts if part)


def _told(status: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (str(status.get("reason", "")), str(status.get("message", ""))) if part)
