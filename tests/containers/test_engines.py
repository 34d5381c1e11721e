"""The private engines themselves: they do what the tests rely on, and leave nothing behind."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.containers.engines import IMAGE, Engine
from tests.containers.keeper import cgroups


def test_runs_a_container(engine: Engine) -> None:
    assert engine.run_cli("run", "--network", "none", IMAGE, "/bin/echo", "hello") == "hello\n"


def test_killed_daemon_comes_back_with_its_containers(engine: Engine) -> None:
    engine.run_cli("create", "--name", "kept", "--network", "none", IMAGE, "/bin/true")

    engine.kill()
    assert not engine.answers()
    engine.restart()

    assert "kept" in engine.run_cli("ps", "--all")


def test_wiped_engine_has_the_image_only(engine: Engine) -> None:
    engine.run_cli("create", "--name", "lost", "--network", "none", IMAGE, "/bin/true")

    engine.wipe()

    assert "lost" not in engine.run_cli("ps", "--all")
    assert "perdure-test/busybox" in engine.run_cli("images")


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_nothing_stays_behind(engine: Engine, end: str) -> None:
    """Another engine of the same kind, in a process that stops it or is killed with a container running."""
    before = leftovers()
    program = textwrap.dedent(f"""
        import os, signal, sys
        sys.path[:0] = {sys.path!r}
        from tests.containers.engines import IMAGE, KINDS
        engine = KINDS[{engine.kind!r}]()
        engine.start()
        print(engine.run_cli("run", "--detach", "--network", "none", IMAGE, "/bin/sleep", "1000").strip())
        print(*engine.pids(), engine._keeper_pid)
        print(engine.root, flush=True)
        if {end!r} == "stop":
            engine.stop()
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    child = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    container, pids, root = child.stdout.splitlines()

    assert len(pids.split()) >= 4, "a keeper, a daemon, a monitor and a sleep"
    wait_for_end(pids.split()[-1])
    assert [pid for pid in pids.split() if runs(pid)] == []
    assert root not in Path("/proc/self/mountinfo").read_text()
    assert not os.path.exists(root)
    assert [path for path in cgroups() if container in path or os.path.basename(root) in path] == []
    assert leftovers() <= before


def leftovers() -> set[str]:
    """What engines leave in places of the machine, under any settings."""
    places = [path for top in ("/run", "/etc/docker", "/dev/shm") for path in Path(top).glob("*")]
    words = ("docker", "containerd", "podman", "libpod", "runc", "cni", "key.json")
    return {str(path) for path in places if any(word in str(path) for word in words)}


def runs(pid: str) -> bool:
    """Process 1 may take its time to bury what it inherited."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_for_end(pid: str) -> None:
    """A pidfd is readable when its process has ended."""
    try:
        fd = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], 20)[0], "the keeper lives on"
    finally:
        os.close(fd)
