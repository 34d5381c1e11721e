"""What a pod's status means, for statuses as clusters give them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perdure.containers.kubernetes.status import Phase, PodState, look

GATED = {"schedulingGates": [{"name": "perdure/recorded"}]}


def main(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "main", "state": state}]}


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    return main(terminated={"exitCode": code, "reason": reason, **more})


def uploaded(code: int, message: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "message": message}}
    return {"initContainerStatuses": [{"name": "perdure-upload", "state": state}]}


DISRUPTED = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, PodState(Phase.PENDING)),
        ({"phase": "Running", **main(running={})}, PodState(Phase.RUNNING)),
        ({"phase": "Running", **ended(0)}, PodState(Phase.UPLOADING)),
        ({"phase": "Running", **ended(3)}, PodState(Phase.UPLOADING, exit_code=3)),
        ({"phase": "Running", **ended(0), **uploaded(0)}, PodState(Phase.ENDED, uploaded=0)),
        ({"phase": "Succeeded", **ended(0)}, PodState(Phase.ENDED)),
        ({"phase": "Failed", **ended(137, "OOMKilled")}, PodState(Phase.ENDED, "", 137, True)),
        ({"phase": "Failed", **ended(0), **uploaded(1, "no bucket")}, PodState(Phase.ENDED, "no bucket", uploaded=1)),
        # Many programs end with 0 when they are told to end.
        ({"phase": "Failed", "reason": "Evicted", **ended(0)}, PodState(Phase.LOST, "Evicted")),
        ({"phase": "Failed", "reason": "DeadlineExceeded", **ended(0)}, PodState(Phase.TIMED_OUT, "DeadlineExceeded")),
        ({"phase": "Failed", **ended(137, "ContainerStatusUnknown")},
         PodState(Phase.LOST, "main: ContainerStatusUnknown: exit code 137")),
        ({"phase": "Pending", **main(waiting={"reason": "PodInitializing"}), "initContainerStatuses": [
            {"name": "perdure-download", "state": {"running": {}}}]}, PodState(Phase.PREPARING)),
        (main(waiting={"reason": "CreateContainerConfigError", "message": "m"}),
         PodState(Phase.REFUSED, "container main: CreateContainerConfigError: m", passing=True)),
        ({"phase": "Failed", "reason": "Evicted", **ended(137)}, PodState(Phase.LOST, "Evicted")),
        ({"phase": "Failed", "reason": "NodeShutdown", "message": "m"}, PodState(Phase.LOST, "NodeShutdown: m")),
        ({"phase": "Failed", **DISRUPTED, **ended(143)}, PodState(Phase.LOST, "PreemptionByScheduler")),
        # An eviction that has begun and is not over.
        ({"phase": "Running", **DISRUPTED, **main(running={})}, PodState(Phase.RUNNING)),
        ({"phase": "Failed", "reason": "DeadlineExceeded", "message": "m"},
         PodState(Phase.TIMED_OUT, "DeadlineExceeded: m")),
        ({"phase": "Failed"}, PodState(Phase.LOST, "the pod is Failed, and the end of its container is unknown")),
        (ended(128, "StartError", message="no such file"), PodState(Phase.REFUSED, "main: StartError: no such file")),
        (main(waiting={"reason": "PodInitializing"}), PodState(Phase.PENDING)),
        (main(waiting={"reason": "ErrImagePull", "message": "m"}),
         PodState(Phase.PENDING, "container main: ErrImagePull: m")),
        (main(waiting={"reason": "ErrImageNeverPull", "message": "m"}),
         PodState(Phase.NO_IMAGE, "container main: ErrImageNeverPull: m")),
        ({"phase": "Failed", "initContainerStatuses": [
            {"name": "perdure-download", "state": {"terminated": {"exitCode": 1, "message": "no bucket"}}}]},
         PodState(Phase.UNPREPARED, "the copilot could not bring its inputs: no bucket", 1)),
        ({"phase": "Failed", "initContainerStatuses": [
            {"name": "mine", "state": {"terminated": {"exitCode": 9, "reason": "Error"}}}]},
         PodState(Phase.UNPREPARED, "mine: Error: exit code 9", 9)),
    ],
)  # fmt: skip
def test_a_status_is_a_state_of_the_attempt(status: dict[str, Any], expected: PodState) -> None:
    assert look({"metadata": {}, "spec": {}, "status": status}) == expected


def test_an_end_well_before_the_deletion_counts_as_a_success() -> None:
    deleted = {"deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}
    for finished, step in (("2026-01-01T00:00:24Z", Phase.ENDED), ("2026-01-01T00:00:29Z", Phase.LOST)):
        pod = {"metadata": deleted, "spec": {}, "status": {"phase": "Succeeded", **ended(0, finishedAt=finished)}}
        assert look(pod).step is step
    moment = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:30Z"}
    for finished, step in (("2026-01-01T00:00:24Z", Phase.ENDED), ("2026-01-01T00:00:29Z", Phase.LOST)):
        status = {"phase": "Succeeded", "conditions": [moment], **ended(0, finishedAt=finished)}
        assert look({"metadata": {}, "spec": {}, "status": status}).step is step
    evicted = {"phase": "Failed", "reason": "Evicted", **ended(0)}
    assert look({"metadata": {}, "spec": {}, "status": evicted}, uploading=True).step is Phase.ENDED


def test_a_node_that_does_not_say_that_its_pod_has_ended_is_lost() -> None:
    deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    pod = {"metadata": deleted, "spec": {}, "status": {"phase": "Running", **main(running={})}}
    then = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert look(pod, then + 30).step is Phase.RUNNING
    assert look(pod, then + 90).step is Phase.LOST
    pod["status"] = {"phase": "Running", **ended(0, finishedAt="2025-12-31T23:00:00Z")}
    assert look(pod, then + 30, uploading=True).step is Phase.UPLOADING
    assert look(pod, then + 90, uploading=True).step is Phase.LOST
    assert look(pod, then + 90).step is Phase.LOST
    pod["status"] |= uploaded(0)
    assert look(pod, then + 90).step is Phase.ENDED


def test_a_copilot_that_never_stands_by_is_told_with_its_words() -> None:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    last = {"terminated": {"exitCode": 1, "message": "the bucket does not let us in"}}
    sidecar = {"name": "perdure-upload", "state": {"waiting": waiting}, "lastState": last, "restartCount": 1}
    pod = {"metadata": {}, "spec": {}, "status": {"phase": "Pending", "initContainerStatuses": [sidecar]}}
    assert look(pod).step is Phase.PENDING
    sidecar["restartCount"] = 2
    assert look(pod) == PodState(
        Phase.UNPREPARED, "the copilot cannot stand by for its outputs: the bucket does not let us in", 1
    )
    # Where the program runs already, it may end as it likes.
    pod["status"] |= main(running={})
    assert look(pod).step is Phase.RUNNING


def test_a_gate_and_a_deletion() -> None:
    assert look({"metadata": {}, "spec": GATED, "status": {"phase": "Pending"}}).step is Phase.GATED
    deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    pod = {"metadata": deleted, "spec": {}, "status": {"phase": "Failed", **ended(137)}}
    assert look(pod) == PodState(Phase.LOST, "the pod was deleted")
    pod["status"] = {"phase": "Running", **main(running={})}
    assert look(pod).step is Phase.RUNNING
