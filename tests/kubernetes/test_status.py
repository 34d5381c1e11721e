"""What a pod's status means, for statuses as clusters give them."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.containers.kubernetes.status import Look, Step, look

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
        ({}, Look(Step.PENDING)),
        ({"phase": "Running", **main(running={})}, Look(Step.RUNNING)),
        ({"phase": "Running", **ended(0)}, Look(Step.UPLOADING)),
        ({"phase": "Running", **ended(3)}, Look(Step.UPLOADING, exit_code=3)),
        ({"phase": "Running", **ended(0), **uploaded(0)}, Look(Step.ENDED, uploaded=0)),
        ({"phase": "Succeeded", **ended(0)}, Look(Step.ENDED)),
        ({"phase": "Failed", **ended(137, "OOMKilled")}, Look(Step.ENDED, "", 137, True)),
        ({"phase": "Failed", **ended(0), **uploaded(1, "no bucket")}, Look(Step.ENDED, "no bucket", uploaded=1)),
        # What ended well has ended well, whatever the cluster then did.
        ({"phase": "Failed", "reason": "Evicted", **ended(0)}, Look(Step.ENDED)),
        ({"phase": "Failed", "reason": "Evicted", **ended(137)}, Look(Step.LOST, "Evicted")),
        ({"phase": "Failed", "reason": "NodeShutdown", "message": "m"}, Look(Step.LOST, "NodeShutdown: m")),
        ({"phase": "Failed", **DISRUPTED, **ended(143)}, Look(Step.LOST, "PreemptionByScheduler")),
        # An eviction that has begun and is not over.
        ({"phase": "Running", **DISRUPTED, **main(running={})}, Look(Step.RUNNING)),
        ({"phase": "Failed", "reason": "DeadlineExceeded", "message": "m"},
         Look(Step.TIMED_OUT, "DeadlineExceeded: m")),
        ({"phase": "Failed"}, Look(Step.LOST, "it is Failed, and nobody knows how its container ended")),
        (ended(128, "StartError", message="no such file"), Look(Step.REFUSED, "main: StartError: no such file")),
        (main(waiting={"reason": "PodInitializing"}), Look(Step.PENDING)),
        (main(waiting={"reason": "ErrImagePull", "message": "m"}),
         Look(Step.PENDING, "container main: ErrImagePull: m")),
        (main(waiting={"reason": "ErrImageNeverPull", "message": "m"}),
         Look(Step.NO_IMAGE, "container main: ErrImageNeverPull: m")),
        ({"phase": "Failed", "initContainerStatuses": [
            {"name": "perdure-download", "state": {"terminated": {"exitCode": 1, "message": "no bucket"}}}]},
         Look(Step.UNPREPARED, "the copilot could not bring its inputs: no bucket", 1)),
        ({"phase": "Failed", "initContainerStatuses": [
            {"name": "mine", "state": {"terminated": {"exitCode": 9, "reason": "Error"}}}]},
         Look(Step.UNPREPARED, "mine: Error: exit code 9", 9)),
    ],
)  # fmt: skip
def test_what_a_status_means(status: dict[str, Any], expected: Look) -> None:
    assert look({"metadata": {}, "spec": {}, "status": status}) == expected


def test_a_gate_and_a_deletion() -> None:
    assert look({"metadata": {}, "spec": GATED, "status": {"phase": "Pending"}}).step is Step.GATED
    deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    pod = {"metadata": deleted, "spec": {}, "status": {"phase": "Failed", **ended(137)}}
    assert look(pod) == Look(Step.LOST, "the pod was deleted")
    pod["status"] = {"phase": "Running", **main(running={})}
    assert look(pod).step is Step.RUNNING
