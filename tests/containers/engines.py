"""A private Docker daemon and a private Podman service for the tests, on sockets of their own.

Each has all of its state in one temporary directory and all of its processes below one keeper (`keeper.py`), so that
stopping it leaves nothing behind and the machine's own engines, if any, are not touched. Needs root; the programs are
installed from Debian's packages where they are missing.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.containers.keeper import PRIVATE, members
from tests.waiting import wait_for

if TYPE_CHECKING:
    from perdure.containers.docker import DockerEngine

Kind = Literal["docker", "podman"]

IMAGE = "perdure-test/busybox:1"
PROGRAMS = {
    "docker": {"dockerd": "docker.io", "containerd": "containerd", "runc": "runc"},
    "podman": {"podman": "podman", "runc": "runc", "catatonit": "catatonit"},
}


class NoEngineError(Exception):
    """No engine can be had here; the text says why."""


# ------------------------------------------------------------------------------------------------------------ packages


def install(kind: Kind) -> None:
    """Install from Debian's packages what this engine needs and is not there."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        raise NoEngineError(f"a private {kind} can be started on Linux by root only")
    missing = {package for program, package in PROGRAMS[kind].items() if not find_program(program)}
    if not is_static("/bin/busybox"):
        missing.add("busybox-static")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise NoEngineError(f"{kind} needs {', '.join(sorted(missing))}, and this is not Debian: install them yourself")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # --no-remove: nothing of the machine's own (docker-ce, a dynamic busybox) is ever replaced.
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "--no-remove", *sorted(missing)]
    with no_service_starts():
        done = run(command, environ)
        if done.returncode:  # most often the lists are missing or old
            run(["apt-get", "update", "-q"], environ)
            done = run(command, environ)
    if done.returncode:
        raise NoEngineError(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}")


def run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=600
    )


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/libexec/podman:/usr/libexec/catatonit")


def is_static(path: str) -> bool:
    try:
        head = Path(path).read_bytes()[:4096]
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and b"/ld-linux" not in head and b"/ld-musl" not in head


@contextlib.contextmanager
def no_service_starts() -> Iterator[None]:
    """Debian's packages start their services when they are installed, unless this file forbids it."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        before = policy.read_bytes(), policy.stat().st_mode
    else:
        before = None
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            policy.unlink()
        else:
            policy.write_bytes(before[0])
            policy.chmod(before[1])


def image_tar() -> bytes:
    """A root file system: busybox and its applets, /tmp, and a user of number 1000."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(
            name: str, data: bytes = b"", *, mode: int = 0o755, type: bytes = tarfile.REGTYPE, link: str = ""
        ) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = type, mode, len(data), link
            tar.addfile(entry, io.BytesIO(data))

        for name, mode in {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "var": 0o755}.items():
            add(name, mode=mode, type=tarfile.DIRTYPE)
        add("bin/busybox", Path("/bin/busybox").read_bytes())
        applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", type=tarfile.SYMTYPE, link="busybox")
        people = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n"
        add("etc/passwd", people.encode(), mode=0o644)
        add("etc/group", b"root:x:0:\nuser:x:1000:\n", mode=0o644)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------------- engines


class Engine:
    """One private engine. `start` it before anything else, `stop` it in the end."""

    kind: Kind
    image = IMAGE
    """An image that is there: busybox, with no entrypoint and no command."""

    def __init__(self) -> None:
        # Short, because a socket's path may have 107 characters.
        self.root = Path(tempfile.mkdtemp(prefix=f"pt-{self.kind}-", dir="/tmp"))
        self.socket = self.root / "engine.sock"
        self.url = f"unix://{self.socket}"
        self._keeper: subprocess.Popen[str] | None = None
        self._keeper_pid = 0
        self._daemon = 0
        self._tar = self.root / "image.tar"

    # ---- for the tests

    def client(self) -> DockerEngine:
        """A new adapter on it; close it."""
        from perdure.containers.docker import DockerEngine

        return DockerEngine(self.url)

    def environ(self) -> dict[str, str]:
        """What tells a perdure process to use this engine."""
        return {"PERDURE_CONTAINER_ENGINE": self.url}

    def kill(self) -> None:
        """SIGKILL for the daemon alone. Its containers run on."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """The daemon again, after `kill` or in place of one that runs."""
        self._end(signal.SIGTERM)
        self._start_daemon()

    def reboot(self) -> None:
        """Every process dies at once, what lives in memory only is lost, and the daemon starts again."""
        self._end_keeper("keep")
        for path in self.volatile():
            shutil.rmtree(path, ignore_errors=True)
        self._start_keeper()
        self._start_daemon()

    def wipe(self) -> None:
        """The engine with all of its state gone, but for the base image."""
        kept = {path: path.read_bytes() for path in self.lasting() if path.exists()}
        self.stop()
        self.root.mkdir(exist_ok=True)
        for path, data in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.start()

    def run_cli(self, *args: str) -> str:
        """The engine's own command line against it; its output."""
        done = self._ask(do="run", argv=[*self.cli(), *args], env=self._environ())
        if done["code"]:
            raise AssertionError(f"{self.kind} {' '.join(args)}: exit code {done['code']}\n{done['err']}")
        return str(done["out"])

    def clear(self) -> None:
        """Remove all containers."""
        for container in json.loads(self._http("GET", "/containers/json?all=1")[1]):
            self._http("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    # ---- life

    def start(self) -> None:
        """Start it, with the base image."""
        install(self.kind)
        self._start_keeper()
        self._start_daemon()
        self._tar.write_bytes(image_tar())
        self.import_image(self._tar, IMAGE)

    def stop(self) -> None:
        """End all of its processes and remove all that it made."""
        self._end_keeper()
        shutil.rmtree(self.root, ignore_errors=True)  # where it never started

    def import_image(self, tar: Path, name: str, *changes: str) -> None:
        """An image from a root file system, with the Dockerfile instructions `changes`."""
        options = [part for change in changes for part in ("--change", change)]
        self.run_cli("import", *options, str(tar), name)

    def processes(self) -> list[str]:
        """Command lines of what runs below the keeper."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return found

    def pids(self) -> list[int]:
        """What runs below the keeper."""
        return members(self._keeper_pid) if self._keeper else []

    # ---- what each kind says for itself

    def cli(self) -> list[str]:
        raise NotImplementedError

    def volatile(self) -> list[Path]:
        """What a reboot of the machine clears."""
        return [self.root / "private0"]

    def lasting(self) -> list[Path]:
        """Files that are not with the containers, and are still there when those are wiped."""
        return []

    def _environ(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "HOME": str(self.root), "LANG": "C.UTF-8"}

    def _start_daemon(self) -> None:
        raise NotImplementedError

    # ---- inside

    def _start_keeper(self) -> None:
        keeper = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert keeper.stdout is not None
        line = keeper.stdout.readline()
        if not line:
            raise NoEngineError("the keeper of the private engine did not start; it needs CAP_SYS_ADMIN")
        self._keeper, self._keeper_pid = keeper, json.loads(line)["pid"]

    def _end_keeper(self, wish: Literal["keep", "remove"] = "remove") -> None:
        """All of its processes and mounts end with it."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.communicate('{"do": "keep"}\n' if wish == "keep" else None, timeout=60)
            self._daemon = 0

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write(json.dumps(request) + "\n")
        self._keeper.stdin.flush()
        answer: dict[str, Any] = json.loads(self._keeper.stdout.readline())
        return answer

    def _spawn(self, log: str, *argv: str) -> int:
        program = find_program(argv[0])
        assert program is not None, argv[0]
        environ = self._environ()
        return self._ask(do="start", argv=[program, *argv[1:]], env=environ, log=str(self.root / log))["pid"]

    def _end(self, number: signal.Signals) -> None:
        pid, self._daemon = self._daemon, 0
        if pid:
            os.kill(pid, number)
            self._until(lambda: not os.path.exists(f"/proc/{pid}"), f"the {self.kind} daemon would not end", 30)
        self.socket.unlink(missing_ok=True)

    def _until(self, done: object, complaint: str, seconds: float = 60) -> None:
        assert callable(done)
        try:
            wait_for(done, seconds)
        except AssertionError:
            logs = "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.root.glob("*.log"))
            raise NoEngineError(f"{complaint}\n{logs}") from None

    def answers(self) -> bool:
        """Whether the daemon is up."""
        try:
            return self._http("GET", "/_ping")[0] == 200
        except OSError:
            return False

    def _http(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request, without the code that is under test."""
        connection = http.client.HTTPConnection("engine", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.socket))
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()


class PrivateDocker(Engine):
    """dockerd with a containerd of its own beside it, as a distribution starts them."""

    kind = "docker"

    def cli(self) -> list[str]:
        return [find_program("docker") or "docker", "--host", self.url]

    def volatile(self) -> list[Path]:
        return [*super().volatile(), self.root / "exec", self.root / "containerd-state"]

    def lasting(self) -> list[Path]:
        return [self.root / f"private{PRIVATE.index('/etc/docker')}" / "key.json"]

    def _start_keeper(self) -> None:
        super()._start_keeper()
        address = self.root / "containerd.sock"
        address.unlink(missing_ok=True)
        config = self.root / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{self.root}/containerd"\nstate = "{self.root}/containerd-state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{address}"\n'
        )
        self._spawn("containerd.log", "containerd", "--config", str(config))
        self._until(address.exists, "containerd does not start")

    def _start_daemon(self) -> None:
        self._daemon = self._spawn(
            "dockerd.log",
            "dockerd",
            f"--data-root={self.root}/data",
            f"--exec-root={self.root}/exec",
            f"--pidfile={self.root}/dockerd.pid",
            f"--containerd={self.root}/containerd.sock",
            f"--host={self.url}",
            f"--cgroup-parent=/perdure-test-{self.root.name}",
            # A sandbox has neither netfilter nor bridges.
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
        )
        self._until(self.answers, "dockerd does not start")


class PrivatePodman(Engine):
    """Podman's API service; its containers belong to their conmons, not to it."""

    kind = "podman"

    def cli(self) -> list[str]:
        return [find_program("podman") or "podman", *self._options()]

    def wrapper(self) -> Path:
        """A directory with a `podman` that uses this engine's storage, for programs that start one."""
        path = self.root / "bin" / "podman"
        path.parent.mkdir(exist_ok=True)
        exports = "".join(f'export {name}="{value}"\n' for name, value in self._own_environ().items())
        # In the keeper's mount namespace, where its containers' file systems are mounted.
        enter = f"nsenter --mount --target={self._keeper_pid}"
        path.write_text(f'#!/bin/sh\n{exports}exec {enter} {" ".join(self.cli())} "$@"\n')
        path.chmod(0o755)
        return path.parent

    def volatile(self) -> list[Path]:
        return [*super().volatile(), self.root / "run", self.root / "tmp"]

    @property
    def _runtime(self) -> Path:
        return self.root / "runtime"

    @contextlib.contextmanager
    def unrecorded_starts(self) -> Iterator[None]:
        """Meanwhile the runtime starts containers and does not return to Podman, which records a start on return."""
        hold = self.root / "hold"
        hold.touch()
        self._runtime.write_text(
            f'#!/bin/sh\n{find_program("runc")} "$@"\ncode=$?\n'
            f'case " $* " in *" start "*) while [ -e {hold} ]; do sleep 0.05; done;; esac\nexit $code\n'
        )
        self._runtime.chmod(0o755)
        self.restart()
        try:
            yield
        finally:
            hold.unlink()

    def _options(self) -> list[str]:
        return [f"--root={self.root}/graph", f"--runroot={self.root}/run", f"--tmpdir={self.root}/tmp"]

    def _own_environ(self) -> dict[str, str]:
        return {
            "CONTAINERS_CONF": f"{self.root}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.root}/storage.conf",
            "CONTAINERS_REGISTRIES_CONF": f"{self.root}/registries.conf",
        }

    def _environ(self) -> dict[str, str]:
        return {**super()._environ(), **self._own_environ()}

    def _start_daemon(self) -> None:
        (self.root / "containers.conf").write_text(
            # A sandbox has no bridges and may not raise limits; Debian's crun wants cgroups v2.
            '[containers]\nnetns = "host"\ndefault_ulimits = []\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            # Its locks are in /dev/shm otherwise, shared with the machine's own Podman.
            'lock_type = "file"\n'
            + (f'[engine.runtimes]\nrunc = ["{self._runtime}"]\n' if self._runtime.exists() else "")
        )
        (self.root / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.root}/graph"\nrunroot = "{self.root}/run"\n'
        )
        (self.root / "registries.conf").write_text('unqualified-search-registries = ["docker.io"]\n')
        self._daemon = self._spawn("podman.log", "podman", *self._options(), "system", "service", "--time=0", self.url)
        self._until(self.answers, "podman's service does not start")


KINDS: dict[str, type[Engine]] = {"docker": PrivateDocker, "podman": PrivatePodman}
