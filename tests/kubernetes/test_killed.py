"""P9 on Kubernetes: perdure is killed with SIGKILL at every point of a pod's life, and the run continued."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.stores import wait_until_lease_is_over
from tests.waiting import is_stopped, wait_for

import perdure
from perdure.containers.kubernetes.cluster import Cluster
from perdure.containers.kubernetes.spec import GATE
from perdure.containers.kubernetes.where import read_where

from .conftest import Setup
from .test_runs import greet, greets, left_in_bucket
from .victim import POINTS

VICTIM = Path(__file__).with_name("victim.py")
DONE = "['before', 'Hello, Ada', 'after']"


def begin(cluster: Setup, point: str = "never", **more: str) -> subprocess.Popen[str]:
    """A process that drives the run."""
    return subprocess.Popen(
        [sys.executable, str(VICTIM), point], cwd=cluster.folder, env={**os.environ, **more}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=60)
    finally:
        process.kill()


@pytest.mark.parametrize("point", POINTS)
def test_one_pod_ever_runs_and_none_is_left(cluster: Setup, point: str) -> None:
    """P9, K1, K6."""
    cluster.kubelet.program = greets
    first = begin(cluster, point)
    said = end(first)
    assert first.returncode == -signal.SIGKILL, said
    out, err = end(begin(cluster))
    assert out.strip() == DONE, err
    assert len(cluster.kubelet.ran) == 1, err
    steps = (cluster.folder / "steps").read_text().split()
    # What is removed is removed beside the next step, which may have been under way when the process died (P2).
    assert steps[:2] == ["before", "after"]
    assert len(steps) == 2 or "_remove" in point or "delete" in point or "_clear" in point
    if len(steps) == 2 and ("_remove" in point or "delete" in point or "_clear" in point):
        # The first process may have recorded the run's end as well; the next process that uses the store looks.
        perdure.run(greet(), name="Eve")
        perdure.init("memory://")
    assert cluster.server.pods() == []
    assert left_in_bucket(cluster) == [], err


@pytest.mark.parametrize("point", ["after create", "after keep"])
def test_one_that_was_frozen_starts_nothing_any_more(cluster: Setup, point: str) -> None:
    """P3, K2: another process has taken the run over and finished it when the first one wakes."""
    cluster.kubelet.program = greets
    frozen = begin(cluster, f"freeze {point}", PERDURE_LEASE="1")
    try:
        wait_for(lambda: is_stopped(frozen.pid))
        wait_until_lease_is_over(cluster.store, frozen.pid)
        out, err = end(begin(cluster, PERDURE_LEASE="1"))
        assert out.strip() == DONE, err
    finally:
        frozen.send_signal(signal.SIGCONT)
    _, err = end(frozen)
    assert "LeaseLostError" in err
    assert len(cluster.kubelet.ran) == 1, err


def test_a_gate_is_opened_for_the_pod_of_the_recorded_uid_alone(cluster: Setup) -> None:
    """K2: another pod has the name by now."""

    async def opens() -> list[bool]:
        found = await Cluster.open(read_where(cluster.engine))
        try:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "taken", "labels": {}},
                "spec": {"schedulingGates": [{"name": GATE}], "containers": [{"name": "main", "image": "any"}]},
            }
            made = await found.create("pods", pod)
            assert made is not None
            other = await found.open_gate("taken", "not-" + made["metadata"]["uid"])
            gated = (await found.get("pods", "taken"))["spec"]["schedulingGates"]  # type: ignore[index]
            assert [gate["name"] for gate in gated] == [GATE]
            return [other, await found.open_gate("taken", made["metadata"]["uid"])]
        finally:
            await found.close()

    assert asyncio.run(opens()) == [False, True]


@pytest.mark.parametrize("days", [8, 6])
def test_an_abandoned_pod_is_removed_after_its_ttl(cluster: Setup, days: int) -> None:
    """`ttl`: the pod of a run without a driver, removed by the next user of the store."""
    cluster.kubelet.program = greets
    cluster.kubelet.finished = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
    end(begin(cluster, "before _outcome"))
    [pod] = cluster.server.pods()
    assert perdure.run(greet(), name="Eve").result == "Hello, Eve"
    perdure.init("memory://")
    assert cluster.server.pods() == ([] if days == 8 else [pod])


def test_a_pod_that_another_cluster_has_is_waited_for(cluster: Setup) -> None:
    cluster.kubelet.program = greets
    end(begin(cluster, "after open_gate"))
    other = cluster.engine.replace("://flows", "://others")
    out, err = end(begin(cluster, PERDURE_CONTAINER_ENGINE=other))
    assert out == ""
    assert "Choose the first with PERDURE_CONTAINER_ENGINE" in err
    assert len(cluster.kubelet.ran) == 1, err
    out, err = end(begin(cluster))
    assert out.strip() == DONE, err
