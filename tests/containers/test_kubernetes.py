"""The specification of a pod, really run: `podman kube play` with real containers, and a real S3 endpoint.

Podman takes pods, init containers and shared volumes; it knows no native sidecars, so that the copilot that takes the
outputs away is rewritten as an ordinary container, and told to end as a kubelet would once the main one has ended.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.containers.conftest import Engines
from tests.containers.copilot_image import copilot_tar
from tests.containers.engines import Engine
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.conftest import Setup
from tests.kubernetes.kubelets import Status

import perdure
from perdure.containers.kubernetes.spec import DOWNLOAD, READY, UPLOAD
from perdure.containers.kubernetes.template import MAIN
from perdure.errors import ContainerError
from perdure.extras import ContainerTask
from perdure.io import Dir, File

COPILOT = "localhost/perdure-copilot:1"
# The copilot's image is made once.
pytestmark = pytest.mark.xdist_group("pods")


class PodmanKubelet:
    """Runs one pod after its gate was opened."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._one = threading.Lock()  # the engine's keeper takes one command at a time

    async def _podman(self, *args: str) -> str:
        def run() -> str:
            with self._one:
                return self._engine.run_cli(*args)

        return await asyncio.to_thread(run)

    async def _logs(self, container: str) -> bytes:
        """Both streams."""

        def run() -> str:
            with self._one:
                said = self._engine._ask(
                    do="run", argv=[*self._engine.cli(), "logs", container], env=self._engine._environ()
                )
            return f"{said['out']}{said['err']}"

        return (await asyncio.to_thread(run)).encode()

    async def __call__(self, server: ApiServer, pod: dict[str, Any]) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        status = Status(server, name)
        file = self._engine.root / f"{name}.yaml"
        sidecar = next(each for each in pod["spec"]["initContainers"] if each["name"] == UPLOAD)
        assert sidecar.pop("restartPolicy") == "Always"
        del sidecar["startupProbe"]
        pod["spec"]["initContainers"].remove(sidecar)
        pod["spec"]["containers"].append(sidecar)
        # Podman 4.3 takes no long annotations, which Kubernetes does.
        pod["metadata"] = {"name": name, "labels": pod["metadata"]["labels"]}
        file.write_text(yaml.safe_dump({key: pod[key] for key in ("apiVersion", "kind", "metadata", "spec")}))
        try:
            await self._secrets(server)
            try:
                await self._podman("kube", "play", str(file))
            except AssertionError as error:
                status.init(DOWNLOAD, 1, str(error).encode() + await self._logs(f"{name}-{DOWNLOAD}"))
                status.set(phase="Failed")
                return
            status.main({"running": {}})
            status.set(phase="Running")
            while (main := await self._state(f"{name}-{MAIN}"))["Status"] != "exited":
                await asyncio.sleep(0.1)
            lines = server.logs.setdefault(uid, [])
            lines += (await self._logs(f"{name}-{MAIN}")).splitlines()
            reason = "OOMKilled" if main["OOMKilled"] else "Error" if main["ExitCode"] else "Completed"
            status.main({"terminated": {"exitCode": main["ExitCode"], "reason": reason}})
            upload = f"{name}-{UPLOAD}"
            while True:  # a kubelet begins main after this (`startupProbe`)
                with contextlib.suppress(AssertionError):
                    await self._podman("exec", upload, "cat", READY)
                    break
                await asyncio.sleep(0.1)
            await self._podman("kill", "--signal", "TERM", upload)
            code = int(await self._podman("wait", upload))
            status.init(UPLOAD, code, await self._logs(upload))
            status.set(phase="Failed" if main["ExitCode"] else "Succeeded")
        finally:
            with contextlib.suppress(AssertionError):
                await asyncio.shield(self._podman("pod", "rm", "--force", "--time", "0", name))

    async def _state(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self._podman("inspect", container))[0]["State"]
        return found

    async def _secrets(self, server: ApiServer) -> None:
        """Podman 4.3 reads a Secret for pods as the JSON of its data."""
        for (kind, name), found in list(server.objects.items()):
            if kind == "secrets":
                plain = {
                    key: base64.b64encode(text.encode()).decode() for key, text in found.get("stringData", {}).items()
                }
                file = self._engine.root / f"{name}.json"
                file.write_text(json.dumps({**plain, **found.get("data", {})}))
                with contextlib.suppress(AssertionError):
                    await self._podman("secret", "rm", name)
                await self._podman("secret", "create", name, str(file))
                file.unlink()


@pytest.fixture(scope="session")
def pods(engines: Engines) -> Engine:
    """Podman with the copilot's image."""
    engine = engines.get("podman")
    tar = engine.root / "copilot.tar"
    tar.write_bytes(copilot_tar())
    engine.import_image(tar, COPILOT, "ENV PATH=/bin:/usr/bin")
    tar.unlink()
    return engine


@pytest.fixture
def cluster(pods: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    found = Setup(tmp_path, monkeypatch, PodmanKubelet(pods))
    template = tmp_path / "pod.yaml"
    # The endpoint is on this machine's loopback.
    template.write_text(yaml.safe_dump({"spec": {"hostNetwork": True}}))
    found.engine = f"kubernetes://flows?copilot={COPILOT}&bucket_secret=bucket&template={template}"
    found.init()
    yield found
    perdure.init("memory://")
    found.server.close()


def shell(script: str, **settings: Any) -> ContainerTask:
    return ContainerTask(name="job", image=settings.pop("image"), command=["/bin/sh", "-c", script], **settings)


def test_a_pod_gets_its_inputs_and_gives_its_outputs(cluster: Setup, pods: Engine) -> None:
    (cluster.folder / "in.bin").write_bytes(b"x" * 3_000_000)
    tree = cluster.folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "a").write_text("a")
    (cluster.folder / "token").write_text("hunter2-hunter2\n")
    task = shell(
        "echo working; test -L /var/inputs/data && exit 9; touch /var/inputs/x && exit 8; "
        "cat /var/inputs/data /var/inputs/data > /var/outputs/big; cp -r /var/inputs/tree /var/outputs/copy; "
        'echo "$TOKEN for $(cat /var/inputs/name), $0" > /var/outputs/said',
        arguments=["{{.inputs.name}}"], image=pods.image,
        inputs={"name": str, "data": File, "tree": Dir}, outputs={"big": File, "copy": Dir, "said": str},
        secrets=[perdure.Secret("TOKEN", file=str(cluster.folder / "token"))],
    )  # fmt: skip
    given, data = Dir.from_local(tree), File.from_local(cluster.folder / "in.bin")
    big, copied, said = perdure.run(task, name="Ada", data=data, tree=given).result
    assert big.size == 6_000_000
    assert copied.hash == given.hash
    assert said.strip() == "hunter2-hunter2 for Ada, Ada"


def test_the_exit_code_and_the_last_lines_are_its_own(cluster: Setup, pods: Engine) -> None:
    task = shell("echo it breaks; echo half > /var/outputs/o; exit 7", image=pods.image, outputs={"o": str})
    with pytest.raises(ContainerError, match="exit code 7") as caught:
        perdure.run(task)
    assert "it breaks" in str(caught.value)


def test_a_user_may_write_and_an_error_file_counts(cluster: Setup, pods: Engine) -> None:
    script = "id -u > /var/outputs/o; echo 'no such customer' > /var/outputs/_ERROR"
    with pytest.raises(ContainerError, match="no such customer"):
        perdure.run(shell(script, image=pods.image, outputs={"o": str}, user="1000"))


def test_without_its_inputs_it_never_runs(cluster: Setup, pods: Engine) -> None:
    cluster.server.add_secret("bucket", {"AWS_ACCESS_KEY_ID": "tester"})
    with pytest.raises(ContainerError, match="could not bring its inputs"):
        perdure.run(shell("echo ran > /var/outputs/o", image=pods.image, outputs={"o": str}))
    assert not any(cluster.server.logs.values())
