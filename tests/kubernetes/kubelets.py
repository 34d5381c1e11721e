"""What kubelets do with a pod, for the API server of the tests: with processes of this machine in place of containers.

The copilot is the real one, in processes of its own, with nothing but the environment that the pod gives it. The main
container is a function of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perdure.containers.kubernetes.spec import DOWNLOAD, READY, UPLOAD
from perdure.containers.kubernetes.template import MAIN

from .api_server import ApiServer

NOW = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Inside:
    """A main container, as its program sees it."""

    container: dict[str, Any]
    inputs: Path
    outputs: Path
    env: dict[str, str]
    files: dict[str, bytes]
    log: Callable[[str], None] = field(repr=False)

    @property
    def argv(self) -> list[str]:
        return [*self.container.get("command", []), *self.container.get("args", [])]


Program = Callable[[Inside], int]


class ProcessKubelet:
    """Runs one pod after its gate was opened. `program` is what the main container does; `ran` counts."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ran: list[str] = []
        """The names of the pods whose main container has begun."""
        self.uploads = True
        """Otherwise the copilot is killed when it should take the outputs away."""
        self.patient = False
        """Whether a program that is told to end may go on for a while, as within the grace period."""
        self.finished = NOW
        """When main containers have ended."""

    async def __call__(self, server: ApiServer, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        folder = Path(tempfile.mkdtemp(prefix="perdure-pod-"))
        status = Status(server, name)
        upload: asyncio.subprocess.Process | None = None
        try:
            status.set(phase="Pending", conditions=[{"type": "PodScheduled", "status": "True"}])
            for sub in ("inputs", "outputs"):
                (folder / sub).mkdir()
            download = await self._copilot(server, pod, DOWNLOAD, folder)
            said = (await download.communicate())[1]
            status.init(DOWNLOAD, download.returncode or 0, said)
            if download.returncode:
                status.set(phase="Failed")
                return
            upload = await self._copilot(server, pod, UPLOAD, folder)
            while not (folder / "ready").exists():
                assert upload.returncode is None, (await upload.communicate())[1]
                await asyncio.sleep(0.02)
            self.ran.append(name)
            status.main({"running": {"startedAt": NOW}})
            status.set(phase="Running")
            code = await self._main(server, pod, folder, status)
            reason = "Completed" if code == 0 else "Error"
            status.main({"terminated": {"exitCode": code, "reason": reason, "finishedAt": self.finished}})
            # As a kubelet ends sidecars once the main container has ended.
            upload.send_signal(signal.SIGTERM if self.uploads else signal.SIGKILL)
            said = (await upload.communicate())[1]
            returned = upload.returncode or 0
            status.init(UPLOAD, returned if returned >= 0 else 128 - returned, said)
            status.set(phase="Failed" if code else "Succeeded")
        finally:
            if upload is not None and upload.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    upload.kill()
            shutil.rmtree(folder, ignore_errors=True)

    async def _main(self, server: ApiServer, pod: dict[str, Any], folder: Path, status: Status) -> int:
        container = next(each for each in pod["spec"]["containers"] if each["name"] == MAIN)
        lines = server.logs.setdefault(pod["metadata"]["uid"], [])
        env, files = _secret(server, pod, container)
        inside = Inside(
            container, folder / "inputs", folder / "outputs", env, files, lambda text: lines.append(text.encode())
        )
        program = asyncio.ensure_future(asyncio.to_thread(self.program, inside))
        try:
            return await asyncio.shield(program)
        except asyncio.CancelledError:
            if self.patient:
                await asyncio.wait([program], timeout=20)
                status.main({"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": self.finished}})
            raise

    async def _copilot(
        self, server: ApiServer, pod: dict[str, Any], name: str, folder: Path
    ) -> asyncio.subprocess.Process:
        container = next(each for each in pod["spec"]["initContainers"] if each["name"] == name)
        [mount] = container["volumeMounts"]
        kind = "inputs" if name == DOWNLOAD else "outputs"
        places = {mount["mountPath"]: str(folder / kind), READY: str(folder / "ready")}
        assert container["command"][0] == "perdure"
        argv = [places.get(part, part) for part in container["command"][1:]]
        env = {each["name"]: each["value"] for each in container["env"]}
        for source in container.get("envFrom", ()):
            env |= server.objects["secrets", source["secretRef"]["name"]]["stringData"]
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "perdure", *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**env, **{key: os.environ[key] for key in ("PATH", "PYTHONPATH", "HOME") if key in os.environ}},
        )  # fmt: skip


class Status:
    """Writes a pod's status."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self._server = server
        self._name = name

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        with contextlib.suppress(KeyError):  # it was removed
            self._server._change(self._name, change)

    def set(self, **parts: Any) -> None:
        self._change(lambda pod: pod["status"].update(parts))

    def main(self, state: dict[str, Any]) -> None:
        self._change(lambda pod: pod["status"].update(containerStatuses=[{"name": MAIN, "state": state}]))

    def init(self, name: str, code: int, said: bytes) -> None:
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        if code:
            state["terminated"]["message"] = said.decode()[-2000:]

        def change(pod: dict[str, Any]) -> None:
            pod["status"].setdefault("initContainerStatuses", []).append({"name": name, "state": state})

        self._change(change)


def expanded(text: str, env: dict[str, str]) -> str:
    """As Kubernetes' `expansion.Expand` reads it."""
    out, at = "", 0
    while at < len(text):
        rest = text[at + 1 :]
        if text[at] != "$" or not rest:
            out, at = out + text[at], at + 1
        elif rest[0] == "$":
            out, at = out + "$", at + 2
        elif rest[0] == "(" and ")" in rest:
            name = rest[1 : rest.index(")")]
            out, at = out + env.get(name, f"$({name})"), at + len(name) + 3
        else:
            out, at = out + "$" + rest[0], at + 2
    return out


def _secret(
    server: ApiServer, pod: dict[str, Any], container: dict[str, Any]
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Environment variables, and files by their paths."""
    import base64

    def value(name: str, key: str) -> bytes:
        return base64.b64decode(server.objects["secrets", name]["data"][key])

    env: dict[str, str] = {}
    for each in container["env"]:
        ref = each.get("valueFrom", {}).get("secretKeyRef")
        env[each["name"]] = value(ref["name"], ref["key"]).decode() if ref else expanded(each["value"], env)
    files: dict[str, bytes] = {}
    volumes = {each["name"]: each["secret"] for each in pod["spec"]["volumes"] if "secret" in each}
    for mount in container["volumeMounts"]:
        if mount["name"] in volumes:
            source = volumes[mount["name"]]
            key = next(item["key"] for item in source["items"] if item["path"] == mount["subPath"])
            files[mount["mountPath"]] = value(source["secretName"], key)
    return env, files
