"""The parent of everything that a private engine consists of, so that nothing of it can stay behind.

It lives in a mount namespace of its own: the engine's overlays and binds vanish with it, and /run and the
like, where engines leave state under any settings, are private directories there. It is the reaper of the
engine's orphans (shims and conmons detach themselves from their parents: they end up here, not at process 1). Its
standard input is the pipe of the test process: one JSON request per line, one answer per line on standard output.
When that pipe ends, however the test process ended, everything below it is killed and the directory removed.

Run as `python keeper.py DIRECTORY`; knows nothing of perdure or pytest.
"""

import ctypes
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SLAVE, MNT_DETACH = 0x1000, 0x4000, 1 << 19, 2
PR_SET_CHILD_SUBREAPER = 36
PRIVATE = ("/run", "/etc/docker", "/var/lib/cni", "/var/lib/containers")
MADE = PRIVATE[2:]
"""Belongs to no package: Podman makes it, or a keeper did. The last keeper removes it where it is empty."""


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    root = sys.argv[1]
    cgroups_before = set(cgroups())
    for path in PRIVATE:
        os.makedirs(path, exist_ok=True)
    unshare(libc, root)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # Ctrl-C is for the test process
        signal.signal(name, signal.SIG_IGN)
    os.setsid()
    answer({"pid": os.getpid()})
    keep = False
    try:
        keep = attend()
    finally:
        kill_all()
        unmount(libc, root)
        leftovers = own_cgroups(root)
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
            if not glob.glob(os.path.join(os.path.dirname(root), "pt-*")):  # else another one uses these, too
                leftovers += [*sorted(set(cgroups()) - cgroups_before, key=len, reverse=True), *MADE]
        for path in leftovers:
            try:
                os.rmdir(path)
            except OSError:  # gone already, or in use by an engine that is none of ours
                pass


def unshare(libc: ctypes.CDLL, root: str) -> None:
    def mount(source: str, target: str, flags: int) -> None:
        if libc.mount(source.encode(), target.encode(), None, flags, None):
            raise OSError(ctypes.get_errno(), f"mount {source} on {target}")

    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "a mount namespace for the engine")
    mount("none", "/", MS_REC | MS_SLAVE)
    for index, path in enumerate(PRIVATE):
        own = os.path.join(root, f"private{index}")
        os.makedirs(own, exist_ok=True)
        mount(own, path, MS_BIND)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def unmount(libc: ctypes.CDLL, root: str) -> None:
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4] for line in file]
    for path in reversed(points):
        if path in PRIVATE or path.startswith(root + "/"):
            libc.umount2(path.encode(), MNT_DETACH)


def attend() -> bool:
    """Serve requests; whether the directory is to be kept in the end."""
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.2)
        reap()
        if not ready:
            continue
        read = os.read(0, 65536)
        if not read:
            return False
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["do"] == "keep":
                return True
            answer(serve(request))


def cgroups() -> list[str]:
    """The control groups that engines made, in every hierarchy."""
    tops = [path for pattern in ("*", "*/*") for path in glob.glob(f"/sys/fs/cgroup/{pattern}/")]
    found = []
    for top in tops:
        if os.path.basename(top.rstrip("/")).startswith(("libpod_parent", "perdure-test-")):
            found += [path for path, _, _ in os.walk(top.rstrip("/"))]
    return found


def own_cgroups(root: str) -> list[str]:
    """The control groups of this engine's containers alone, the innermost first."""
    names = [f"/perdure-test-{os.path.basename(root)}"]
    containers = os.path.join(root, "graph", "overlay-containers")
    if os.path.isdir(containers):
        names += [f"/libpod-{name}" for name in os.listdir(containers) if len(name) == 64]
    found = [path for path in cgroups() if any(name in path for name in names)]
    return sorted(found, key=len, reverse=True)


def answer(value: object) -> None:
    try:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        pass


def serve(request: dict) -> object:
    if request["do"] == "start":
        with open(request["log"], "ab") as log:
            child = subprocess.Popen(
                request["argv"], env=request["env"], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        child.returncode = 0  # reaped below, by number
        return {"pid": child.pid}
    if request["do"] == "run":
        done = subprocess.run(
            request["argv"], env=request["env"], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr}
    raise ValueError(request)


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def kill_all() -> None:
    """Every process below this one, until there is none: those killed leave orphans, which then are ours."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        below = members(os.getpid())
        if not below:
            return
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)  # those that are killed take a moment to end
        reap()


def members(keeper: int) -> list[int]:
    """All processes below the keeper, and those that entered its mount namespace with what is below them."""
    children: dict[int, list[int]] = {}
    found: set[int] = set()
    home = namespace(keeper)
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            pid = int(entry)
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    parent = int(file.read().rsplit(b")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(pid)
            if home and namespace(pid) == home:
                found.add(pid)
    look = [keeper, *found]
    while look:
        below = children.get(look.pop(), [])
        look += [pid for pid in below if pid not in found]
        found.update(below)
    return sorted(found - {keeper})


def namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


if __name__ == "__main__":
    main()
