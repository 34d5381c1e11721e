"""What goes wrong in clusters, and what becomes of the task."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.waiting import Stall

import perdure
from perdure.containers.kubernetes import tree
from perdure.errors import (
    ContainerError,
    EngineUnavailableError,
    ImageNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from perdure.store import open_bucket

from .api_server import ApiServer
from .conftest import Setup
from .kubelets import Inside, Status
from .test_runs import greet, greets


class Slowly:
    """A program that ends when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, inside: Inside) -> int:
        inside.log("begun")
        self.begun.set()
        assert self.go_on.wait(60)
        return greets(inside)


def beside(cluster: Setup, slowly: Slowly, disturb: Callable[[], None]) -> None:
    """Once the container runs: disturb it, then let it end."""
    slowly.begun.wait(60)
    disturb()
    slowly.go_on.set()


@pytest.mark.parametrize("fault", ["streams break", "versions expire", "outage", "many outages"])
def test_a_run_goes_on_over_it(cluster: Setup, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    """K5."""
    slowly = cluster.kubelet.program = Slowly()

    def disturb() -> None:
        if fault == "versions expire":
            cluster.server.compact()
        for _ in range(5 if fault == "many outages" else 1):
            cluster.server.down = "outage" in fault
            cluster.server.break_streams()
            time.sleep(0.4)  # an outage lasts
            cluster.server.down = False
            time.sleep(0.1)  # and the server is back for a while

    threading.Thread(target=beside, args=(cluster, slowly, disturb)).start()
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[greet]")]
    assert lines == ["[greet] begun", "[greet] greeting Ada"]


def once(answer: Callable[[web.Request], web.Response | None]) -> Callable[[web.Request], web.Response | None]:
    """Only the first time that it answers."""
    used = False

    def found(request: web.Request) -> web.Response | None:
        nonlocal used
        result = None if used else answer(request)
        used = used or result is not None
        return result

    return found


@pytest.mark.parametrize(
    ("method", "code"), [("POST", 429), ("POST", 500), ("PATCH", 409), ("PATCH", 500), ("GET", 503)]
)
def test_a_request_that_is_turned_away_is_made_again(cluster: Setup, method: str, code: int) -> None:
    cluster.kubelet.program = greets

    def busy(request: web.Request) -> web.Response | None:
        if request.method != method or (not cluster.server.posted and method != "POST"):
            return None
        return web.json_response({"code": code, "reason": "Busy", "message": "not now"}, status=code)

    if method == "POST":
        # Before, a first answer has told that there is a cluster at all.
        assert perdure.run(greet(), name="Eve").result == "Hello, Eve"
    cluster.server.answers.append(once(busy))
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == (2 if method == "POST" else 1)


def test_a_lost_answer_to_the_creation_makes_no_second_pod(cluster: Setup) -> None:
    cluster.kubelet.program = greets
    assert perdure.run(greet(), name="Eve").result == "Hello, Eve"
    plain = cluster.server._create

    async def lost(request: web.Request) -> web.Response:
        answer = await plain(request)
        if len(cluster.server.posted) == 2:
            assert request.transport is not None
            request.transport.abort()
        return answer

    cluster.server.answers.append(lambda request: None)
    cluster.server._create = lost  # type: ignore[method-assign]
    for resource in cluster.server._runner.app.router.resources():  # type: ignore[union-attr]
        for route in resource:
            if route.method == "POST":
                route._handler = lost
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == 2
    assert len(cluster.server.posted) == 3


def evicted(pod: dict[str, Any]) -> None:
    pod["status"] = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}


def node_lost(pod: dict[str, Any]) -> None:
    pod["status"]["phase"] = "Failed"
    pod["status"]["conditions"] = [
        {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "node is gone"}
    ]


def preempted(pod: dict[str, Any]) -> None:
    node_lost(pod)
    pod["status"]["containerStatuses"] = [
        {"name": "main", "state": {"terminated": {"exitCode": 143, "reason": "Error"}}}
    ]


@pytest.mark.parametrize("fault", [evicted, node_lost, preempted, None])
def test_a_pod_ended_by_the_cluster_is_tried_again_and_not_charged(cluster: Setup, fault: Any) -> None:
    """K4."""
    slowly = Slowly()
    first = True

    def program(inside: Inside) -> int:
        nonlocal first
        if first:
            first = False
            return slowly(inside)
        return greets(inside)

    def disturb() -> None:
        [name] = cluster.kubelet.ran
        if fault is None:  # a person deletes it
            cluster.server._loop.call_soon_threadsafe(cluster.server._delete_pod, name, 30)
        else:
            cluster.server.change(name, fault)

    cluster.kubelet.program = program
    threading.Thread(target=beside, args=(cluster, slowly, disturb)).start()
    assert perdure.run(greet(retries=0), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == 2
    assert len(set(cluster.kubelet.ran)) == 2


def stuck(status: dict[str, Any]) -> Callable[[ApiServer, dict[str, Any]], Any]:
    """A kubelet that gets no further than that."""

    async def kubelet(server: ApiServer, pod: dict[str, Any]) -> None:
        server._change(pod["metadata"]["name"], lambda found: found["status"].update(status))

    return kubelet


def waiting(reason: str, message: str, kind: str = "containerStatuses", name: str = "main") -> dict[str, Any]:
    return {kind: [{"name": name, "state": {"waiting": {"reason": reason, "message": message}}}]}


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (waiting("ImagePullBackOff", "Back-off pulling img:1"), ImageNotFoundError, "Back-off pulling img:1"),
        (waiting("InvalidImageName", "no good"), ImageNotFoundError, "InvalidImageName: no good"),
        (waiting("CreateContainerConfigError", 'secret "x" not found'), UsageError, 'secret "x" not found'),
        (
            waiting("ImagePullBackOff", "Back-off", "initContainerStatuses", "perdure-download"),
            ImageNotFoundError,
            "perdure-download: ImagePullBackOff",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "main",
                        "state": {"terminated": {"exitCode": 128, "reason": "StartError", "message": "no /bin/greet"}},
                    }
                ],
                "phase": "Failed",
            },
            UsageError,
            "no /bin/greet",
        ),
    ],
)
def test_a_pod_that_can_never_start_fails_within_seconds(
    cluster: Setup, status: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.containers.kubernetes.life.REFUSED_SECONDS", 1.0)
    cluster.server._kubelet = stuck(status)
    with Stall() as stall, pytest.raises(error, match=said):
        perdure.run(greet(), name="Ada")
    assert stall.took < stall.bound(10.0, work=1.0)


@pytest.mark.parametrize("where", ["status", "event"])
def test_a_pod_that_cannot_start_yet_is_reported_and_given_up(
    cluster: Setup, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.init("&pending=6")
    status: dict[str, Any] = {}
    said = "0/3 nodes are available: 3 Insufficient cpu."
    if where == "status":
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
        status = {"conditions": [condition]}
    else:
        said = "MountVolume.SetUp failed"
        cluster.server.add_event("FailedMount", said)
    cluster.server._kubelet = stuck(status)
    with pytest.raises(ContainerError, match=f"has not started for 6 s: .*{said}"):
        perdure.run(greet(), name="Ada")
    assert any("cannot start yet" in line.message and said in line.message for line in caplog.records)


def test_without_its_inputs_it_never_starts(cluster: Setup) -> None:
    cluster.server.add_secret("bucket", {"AWS_ACCESS_KEY_ID": "tester"})
    with pytest.raises(ContainerError, match=r"the copilot could not bring its inputs: .*Missing SecretAccessKey"):
        perdure.run(greet(), name="Ada")
    assert cluster.kubelet.ran == []


def test_outputs_that_cannot_be_taken_away_fail_the_task_with_the_reason(cluster: Setup) -> None:
    def program(inside: Inside) -> int:
        greets(inside)
        os.mkfifo(inside.outputs / "pipe")
        (inside.outputs / "greeting").unlink()
        os.symlink("nowhere", inside.outputs / "greeting")
        shutil.rmtree(inside.outputs)
        return 0

    cluster.kubelet.program = program
    with pytest.raises(ContainerError, match=r"outputs could not be taken to the bucket: .*No such file"):
        perdure.run(greet(), name="Ada")


def test_a_copilot_that_is_killed_is_no_fault_of_the_program(cluster: Setup) -> None:
    def program(inside: Inside) -> int:
        cluster.kubelet.uploads = len(cluster.kubelet.ran) > 1
        return greets(inside)

    cluster.kubelet.program = program
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == 2


def test_a_deletion_while_the_outputs_are_taken_away_costs_nothing(cluster: Setup, tmp_path: Path) -> None:
    """The main container had ended by itself, and the node takes longer than a look to say that all is over."""
    (tmp_path / "greeting").write_text("Hello, Ada")

    async def kubelet(server: ApiServer, pod: dict[str, Any]) -> None:
        name, upload = pod["metadata"]["name"], pod["spec"]["initContainers"][1]
        cluster.kubelet.ran.append(name)
        status = Status(server, name)
        status.main({"terminated": {"exitCode": 0, "reason": "Completed"}})
        await asyncio.sleep(0.5)
        server._change(name, lambda found: found["metadata"].update(deletionTimestamp="2999-01-01T00:00:00Z"))
        await asyncio.sleep(3)
        (tmp_path / "out").mkdir()
        (tmp_path / "greeting").rename(tmp_path / "out" / "greeting")
        await asyncio.to_thread(tree.upload, str(tmp_path / "out"), open_bucket(upload["command"][4]))
        status.set(phase="Succeeded")
        server._remove(name)

    cluster.server._kubelet = kubelet
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == 1


def test_a_token_that_runs_out_is_renewed(cluster: Setup) -> None:
    """The kubeconfig's programs make new ones; nothing of the run is lost meanwhile."""
    slowly = cluster.kubelet.program = Slowly()

    def disturb() -> None:
        cluster.server.token = "another"
        cluster.server.kubeconfig(cluster.folder / "kubeconfig")
        cluster.server.break_streams()

    threading.Thread(target=beside, args=(cluster, slowly, disturb)).start()
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    assert len(cluster.kubelet.ran) == 1


def test_a_container_that_is_made_at_the_second_try(cluster: Setup) -> None:
    plain = cluster.kubelet

    async def stumbles(server: ApiServer, pod: dict[str, Any]) -> None:
        bad = waiting("CreateContainerConfigError", "failed to sync secret cache")
        server._change(pod["metadata"]["name"], lambda found: found["status"].update(bad))
        await asyncio.sleep(1)
        server._change(pod["metadata"]["name"], lambda found: found["status"].pop("containerStatuses"))
        await plain(server, pod)

    cluster.kubelet.program = greets
    cluster.server._kubelet = stumbles
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"


@pytest.mark.parametrize("name", ["fetch", "_bring"])
def test_a_bucket_that_is_away_for_a_moment_costs_no_outputs(
    cluster: Setup, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cluster.kubelet.program = greets
    plain, failed = getattr(tree, name), []

    def once_away(*args: Any) -> Any:
        if not failed:
            failed.append(True)
            raise StoreUnavailableError("the bucket is away")
        return plain(*args)

    monkeypatch.setattr(tree, name, once_away)
    long = "Ada" * 2000
    assert perdure.run(greet(), name=long).result == f"Hello, {long}"
    assert failed
    assert len(cluster.kubelet.ran) == 1


def refusal(code: int, message: str) -> Callable[[web.Request], web.Response | None]:
    return lambda request: web.json_response({"code": code, "reason": "No", "message": message}, status=code)


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (
            403,
            'pods is forbidden: User "u" cannot create resource "pods"',
            "does not allow the request: pods is",
        ),
        (401, "Unauthorized", "does not know us: check the credentials"),
        (404, 'namespaces "flows" not found', "Is there a namespace flows"),
    ],
)
def test_a_missing_permission_is_reported_in_one_line(cluster: Setup, code: int, message: str, said: str) -> None:
    cluster.server.answers.append(lambda request: refusal(code, message)(request) if request.method == "POST" else None)
    with pytest.raises(UsageError, match=said) as caught:
        perdure.run(greet(retries=3), name="Ada")
    assert "\n" not in str(caught.value)
    # A token may have run out, so that it is asked once more with another one.
    assert len([line for line in cluster.server.asked if line.startswith("POST")]) == (2 if code == 401 else 1)


def test_a_pod_that_the_schema_refuses_is_refused(cluster: Setup) -> None:
    task = greet(pod_template={"spec": {"nodeSelector": ["no", "mapping"]}})
    with pytest.raises(UsageError, match=r"refuses the request: .*is not of type"):
        perdure.run(task, name="Ada")


def test_no_cluster_is_one_clear_line(cluster: Setup) -> None:
    cluster.server.down = True
    with pytest.raises(EngineUnavailableError, match="does not answer"):
        perdure.run(greet(), name="Ada")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kubernetes://flows", "pods need an image that holds perdure"),
        ("kubernetes://flows?copilot=c&context=other", "no cluster is known here"),
        ("kubernetes://flows?copilot=c&nonsense=1", "there is no option 'nonsense'"),
        ("kubernetes://flows?copilot=c&pending=soon", "pending must be a number of seconds"),
        ("kubernetes://flows?copilot=c&template=/nowhere.yaml", "pod template /nowhere.yaml cannot be read"),
        ("kubernetes://flows/more?copilot=c", "write it as"),
    ],
)
def test_an_url_that_makes_no_sense(cluster: Setup, url: str, said: str) -> None:
    perdure.init(cluster.store, container_engine=url)
    with pytest.raises(UsageError, match=said):
        perdure.run(greet(), name="Ada")


def test_without_a_bucket_nothing_gets_there(cluster: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERDURE_BLOBS")
    with pytest.raises(UsageError, match="through a bucket: name one with PERDURE_BLOBS"):
        perdure.run(greet(), name="Ada")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"network": "none"}, "network policy"),
        ({"user": "www-data"}, "takes the number of a user"),
        ({"image": "DOCKERFILE"}, "Kubernetes builds no images"),
    ],
)
def test_settings_that_kubernetes_lacks_are_refused(cluster: Setup, settings: dict[str, Any], said: str) -> None:
    if "image" in settings:
        (cluster.folder / "Dockerfile").write_text("FROM scratch\n")
        settings = {"image": perdure.Image.from_dockerfile(cluster.folder / "Dockerfile")}
    with pytest.raises(UsageError, match=said):
        perdure.run(greet().override(**settings), name="Ada")
    assert cluster.server.posted == []


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        ({}, {}),
        ({}, {"perdure/about": "{}"}),
        ({}, {"perdure/about": "whole"}),
        ({"perdure/attempt": "another"}, {"perdure/about": "whole"}),
        ({"perdure/attempt": "another"}, {"perdure/about": "\ud800"}),
    ],
    ids=["bare", "empty", "no attempt", "another's attempt", "no text"],
)
def test_a_strange_pod_does_not_stop_the_sweep(
    cluster: Setup, labels: dict[str, str], annotations: dict[str, str]
) -> None:
    """A pod with perdure's labels that is not perdure's is left alone, and runs go on."""
    cluster.kubelet.program = greets
    about = '{"run":9,"uid":"ab","name":"n","action":1,"attempt":1,"engine":"e","url":"u"}'
    store = perdure.runtime.containers().store_label  # type: ignore[attr-defined]
    cluster.server.objects["pods", "strange"] = {
        "metadata": {
            "name": "strange", "uid": "u-1", "resourceVersion": "1",
            "labels": {"app.kubernetes.io/managed-by": "perdure", "perdure/store": store, **labels},
            "annotations": {key: about if text == "whole" else text for key, text in annotations.items()},
        },
        "spec": {}, "status": {"phase": "Running"},
    }  # fmt: skip
    assert perdure.run(greet(), name="Ada").result == "Hello, Ada"
    perdure.init(cluster.store)
    assert [pod["metadata"]["name"] for pod in cluster.server.pods()] == ["strange"]
    del cluster.server.objects["pods", "strange"]


def test_the_next_attempt_waits_for_the_end_of_a_pod_that_timed_out(cluster: Setup) -> None:
    """Attempts never overlap, and the last lines of the first are in its log."""
    spans: list[list[float]] = []

    def program(inside: Inside) -> int:
        span = [time.monotonic()]
        spans.append(span)
        inside.log(f"begun {len(spans)}")
        if len(spans) < 2:
            time.sleep(12)  # longer than its timeout and the patience behind it
            inside.log("last words")
        span.append(time.monotonic())
        return greets(inside)

    cluster.kubelet.program, cluster.kubelet.patient = program, True
    run = perdure.run(greet(timeout=8, retries=1), name="Ada")
    assert run.result == "Hello, Ada"
    assert len(spans) == 2
    assert spans[1][0] >= spans[0][1]
    log = next(Path(cluster.folder).glob("s.db-logs/*/*.1.log"))
    assert "last words" in log.read_text()
