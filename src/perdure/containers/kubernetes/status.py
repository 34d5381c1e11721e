"""The state of an attempt in a pod's status, as a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from .spec import DOWNLOAD, GATE, UPLOAD
from .template import MAIN


class Phase(Enum):
    """The progress of a pod."""

    GATED = auto()
    """Recorded, perhaps; no container has started."""
    PENDING = auto()
    """The main container has not begun, and no init container works."""
    PREPARING = auto()
    """An init container is at work."""
    RUNNING = auto()
    UPLOADING = auto()
    """The main container has ended, and the outputs are on the way."""
    ENDED = auto()
    """All containers have ended, and the end of the main container is known."""
    UNPREPARED = auto()
    """An init container has failed, so that the main container never began."""
    REFUSED = auto()
    """The pod can never start: the specification is wrong."""
    NO_IMAGE = auto()
    TIMED_OUT = auto()
    """The cluster has ended the pod at the deadline."""
    LOST = auto()
    """The node, or the cluster, has ended the pod."""


class PodState(NamedTuple):
    """A pod at one moment."""

    step: Phase
    reason: str = ""
    """In the cluster's words, where something is wrong."""
    exit_code: int = 0
    oom_killed: bool = False
    uploaded: int | None = None
    """The exit code of the uploading copilot; `None`: not ended, or unknown."""
    passing: bool = False
    """The kubelet tries again by itself."""


OOM_KILLED: Final = "OOMKilled"
_NO_IMAGE: Final = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff", "ImageInspectError", "SignatureValidationFailed"}
)
_REFUSED: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_START_FAILED: Final = frozenset({"StartError", "ContainerCannotRun"})
_FORGOTTEN: Final = frozenset({"ContainerStatusUnknown", "Unknown"})
"""Reasons of a kubelet, or of a container runtime, for an unknown end: after a reboot, say."""
_DISRUPTED: Final = "DisruptionTarget"
_UNCONFIRMED: Final = 60.0
"""Seconds after which a deleted pod is taken for lost with the node."""
_SKEW: Final = 5.0
"""Seconds by which the clocks of a node and of the cluster may differ, whole seconds included."""
_RESTARTS: Final = 2
"""Failed starts of the copilot's sidecar that are taken for passing."""


def look(pod: Mapping[str, Any], now: float = 0.0, *, uploading: bool = False) -> PodState:
    """The state of an attempt's pod.

    Args:
        now: seconds since the epoch.
        uploading: the pod was seen uploading before, so that the main container has ended by itself.
    """
    status = pod.get("status") or {}
    phase = status.get("phase", "")
    ended = _terminated(_container(status, "containerStatuses", MAIN))
    lost = _lost(status, pod["metadata"].get("deletionTimestamp") is not None)
    over = phase in ("Succeeded", "Failed")
    late = over and status.get("reason") == "DeadlineExceeded"
    if ended is not None and ended.get("reason") in _FORGOTTEN:
        return PodState(Phase.LOST, _of_state("main", ended))
    # Many programs end with 0 on SIGTERM, with half of their work done.
    if ended is not None and (not (lost or late) or uploading or _ended_before(ended, pod)):
        seen = _main_ended(ended, status, over)
        if seen.step is Phase.UPLOADING and now > _deleted_at(pod) + _UNCONFIRMED:
            return PodState(Phase.LOST, "the upload of outputs had begun, and the node does not report its end")
        return seen
    if late:
        return PodState(Phase.TIMED_OUT, _told(status))
    if lost and (over or ended is not None):
        return PodState(Phase.LOST, lost)
    if now > _deleted_at(pod) + _UNCONFIRMED:
        return PodState(Phase.LOST, "the pod was deleted, and the node does not report its end")
    failed = next(_failed_before(status), None)
    if failed is not None and ended is None:
        return failed
    if over:
        return PodState(Phase.LOST, _told(status) or f"the pod is {phase}, and the end of its container is unknown")
    if any(gate.get("name") == GATE for gate in pod["spec"].get("schedulingGates") or ()):
        return PodState(Phase.GATED)
    if _runs(_container(status, "containerStatuses", MAIN)):
        return PodState(Phase.RUNNING)
    if any(_runs(one) for one in status.get("initContainerStatuses") or () if one["name"] != UPLOAD):
        return PodState(Phase.PREPARING)
    return _pending(status)


def _ended_before(ended: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    """Whether main had ended well before the cluster began to end the pod. A kubelet reports an end of its own
    making (an eviction, a node's shutdown, the deadline) only when all is over."""
    status = pod["status"]
    if ended.get("exitCode") or status.get("reason"):
        return False
    moments = [
        _seconds(condition.get("lastTransitionTime"))
        for condition in status.get("conditions") or ()
        if condition.get("type") == _DISRUPTED and condition.get("status") == "True"
    ]
    meta = pod["metadata"]
    if meta.get("deletionTimestamp") is not None:
        moments.append(_deleted_at(pod) - float(meta.get("deletionGracePeriodSeconds") or 0))
    finished = _seconds(ended.get("finishedAt"))
    return finished > 0 and bool(moments) and finished + _SKEW < min(moments)


def _deleted_at(pod: Mapping[str, Any]) -> float:
    """The time for the pod to be gone; infinite for a pod that is not deleted."""
    return _seconds(pod["metadata"].get("deletionTimestamp")) or float("inf")


def _seconds(text: Any) -> float:
    """RFC 3339 as seconds since the epoch; 0: nothing is said."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def newest(pod: Mapping[str, Any]) -> float:
    """The last end of a container, or else the creation; seconds since the epoch."""
    status = pod.get("status") or {}
    ends = [
        _seconds((_terminated(one) or {}).get("finishedAt"))
        for kind in ("initContainerStatuses", "containerStatuses")
        for one in status.get(kind) or ()
    ]
    return max(ends, default=0.0) or _seconds(pod["metadata"].get("creationTimestamp"))


def _runs(container: Mapping[str, Any]) -> bool:
    return (container.get("state") or {}).get("running") is not None


def _main_ended(ended: Mapping[str, Any], status: Mapping[str, Any], over: bool) -> PodState:
    code = int(ended.get("exitCode", 0))
    reason = str(ended.get("reason", ""))
    if reason in _START_FAILED:
        return PodState(Phase.REFUSED, _of_state("main", ended))
    upload = _terminated(_container(status, "initContainerStatuses", UPLOAD))
    done = over or upload is not None
    said = ""
    if upload is not None and upload.get("exitCode"):
        said = str(upload.get("message", "")).strip() or str(upload.get("reason", ""))
    return PodState(
        Phase.ENDED if done else Phase.UPLOADING,
        said,
        code,
        reason == OOM_KILLED,
        int(upload["exitCode"]) if upload is not None and "exitCode" in upload else None,
    )


def _lost(status: Mapping[str, Any], leaving: bool) -> str:
    """The cluster's reason for ending the pod; empty: the cluster has not."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == _DISRUPTED and condition.get("status") == "True":
            return f"{condition.get('reason', _DISRUPTED)}: {condition.get('message', '')}".rstrip(": ")
    reason = status.get("reason", "")
    if reason and reason != "DeadlineExceeded":
        return _told(status)
    return "the pod was deleted" if leaving else ""


def _failed_before(status: Mapping[str, Any]) -> Iterator[PodState]:
    """Init containers that have failed."""
    for container in status.get("initContainerStatuses") or ():
        ended = _terminated(container)
        if container["name"] != UPLOAD and ended is not None and ended.get("exitCode"):
            who = "the copilot could not bring its inputs" if container["name"] == DOWNLOAD else container["name"]
            yield PodState(Phase.UNPREPARED, _of_state(who, ended), int(ended["exitCode"]))


def _pending(status: Mapping[str, Any]) -> PodState:
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        before = (container.get("lastState") or {}).get("terminated")
        if container["name"] == UPLOAD and before is not None and container.get("restartCount", 0) >= _RESTARTS:
            what = _of_state("the copilot cannot stand by for its outputs", before)
            return PodState(Phase.UNPREPARED, what, int(before.get("exitCode", 0)))
        told = _of_state(f"container {container['name']}", waiting)
        if reason in _NO_IMAGE:
            return PodState(Phase.NO_IMAGE, told)
        if reason in _REFUSED:
            return PodState(Phase.REFUSED, told, passing=True)
        if reason not in ("", "PodInitializing", "ContainerCreating"):
            return PodState(Phase.PENDING, told)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return PodState(Phase.PENDING, f"{condition.get('reason', '')}: {condition.get('message', '')}")
    return PodState(Phase.PENDING)


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
