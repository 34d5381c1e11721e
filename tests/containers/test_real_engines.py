"""What only a real engine can show: users, mounts, limits, signals, bytes in logs, and what Podman does otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.containers.engines import IMAGE, Engine
from tests.containers.test_engine_contract import LABELS, Subject, finish, run, sh, text_of

from perdure.containers._wire import config
from perdure.containers.engine import ContainerEngine, ContainerSpec, Mount
from perdure.errors import ContainerError, ImageNotFoundError, UsageError


@pytest.fixture(params=["docker", "podman"])
def real(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param, request.getfixturevalue(request.param))


# ------------------------------------------------------------------------------------------------- what is asked for


def test_user_workdir_and_environment(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(engine, 'id -u; pwd; echo "$A|$B"', user="1000", workdir="/tmp", env={"A": "x=y z", "B": ""})
        assert await text_of(engine, "who", spec) == "1000\n/tmp\nx=y z|"
        spec = await sh(engine, "id -u; id -g", user="user:root")
        assert await text_of(engine, "who", spec) == "1000\n0"

    run(real, scenario)


def test_no_network(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        names = await text_of(engine, "alone", await sh(engine, "ls /sys/class/net", network="none"))
        assert "eth0" not in names
        assert "lo" in names.split()
        seen = await text_of(engine, "host", await sh(engine, "ls /sys/class/net", network="host"))
        # Other tests, in other processes, make and remove such ends of cables all the time.
        lasting = [
            {name for name in names if "veth" not in name} for names in (seen.split(), os.listdir("/sys/class/net"))
        ]
        assert lasting[0] == lasting[1]

    run(real, scenario)


def test_no_new_privileges(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        text = await text_of(engine, "safe", await sh(engine, "grep -E 'NoNewPrivs|CapEff' /proc/self/status"))
        facts = dict(line.split(":\t") for line in text.splitlines())
        assert facts["NoNewPrivs"] == "1"
        sys_admin = 1 << 21
        assert not int(facts["CapEff"], 16) & sys_admin

    run(real, scenario)


@pytest.mark.parametrize("odd", ["in: b=c", "in a,b=c", "in:a,b"])
def test_mounts(real: Subject, tmp_path: Path, odd: str) -> None:
    """Names with all that a shorter way of writing mounts would trip over. Podman bears all but both at once."""
    if real.kind == "podman" and odd == "in:a,b":
        with pytest.raises(UsageError, match="a colon and a comma"):
            config(ContainerSpec(image="x", mounts=(Mount(odd, "/x", True),)), podman=True)
        return
    inputs = tmp_path / odd
    outputs = tmp_path / "out"
    inputs.mkdir()
    outputs.mkdir()
    (inputs / "file").write_text("content")
    (tmp_path / "file:single").write_text("alone")

    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(
            engine,
            "cat '/x y=z/file' /one; echo > '/x y=z/new'; echo changed > /one; echo written > /out/new",
            mounts=(
                Mount(str(inputs), "/x y=z", True),
                Mount(str(tmp_path / "file:single"), "/one", True),
                Mount(str(outputs), "/out", False),
            ),
        )
        code, lines = await finish(engine, "mounts", spec)
        assert code == 0
        assert [line.data for line in lines if line.stream == "stdout"] == [b"contentalone"]
        assert sum(b"Read-only" in line.data for line in lines) == 2
        assert os.listdir(inputs) == ["file"]
        assert (tmp_path / "file:single").read_text() == "alone"
        assert (outputs / "new").read_text() == "written\n"

    run(real, scenario)


def test_a_mount_of_nothing(real: Subject, tmp_path: Path) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(engine, "true", mounts=(Mount(str(tmp_path / "missing"), "/x", True),))
        with pytest.raises(UsageError, match="missing"):
            await engine.create("nothing", spec)
        assert not (tmp_path / "missing").exists()
        assert await engine.inspect("nothing") is None

    run(real, scenario)


def test_limits(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(engine, "df -k /dev/shm | tail -1; cat /sys/fs/cgroup/memory*/memory.limit_in_bytes "
                                "/sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu*/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max",
                        memory=64 << 20, cpu=0.5, shm=8 << 20)  # fmt: skip
        _, lines = await finish(engine, "limits", spec)
        text = "\n".join(line.data.decode() for line in lines if line.stream == "stdout")
        assert text.split()[1] == "8192"
        assert str(64 << 20) in text
        assert "50000" in text
        assert real.private is not None
        await engine.create("swap", spec)
        swap = real.private.run_cli("inspect", "--format", "{{.HostConfig.MemorySwap}}", "swap")
        assert int(swap) == 64 << 20, "no swap on top"

    run(real, scenario)


def test_out_of_memory_is_told(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        # A string that doubles: 64 MiB are soon too few. Podman with control groups of version 1 does not say what
        # happened; the kernel does, to those who watched the process.
        spec = await sh(engine, "sleep 0.5; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done", memory=64 << 20)
        id = await engine.create("greedy", spec)
        await engine.start("greedy")
        await engine.wait(id)
        seen = await engine.inspect(id)
        assert seen is not None
        assert (seen.exit_code, seen.oom_killed) == (137, True)

    run(real, scenario)


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, "image image"),
        (None, ("mine",), "image mine"),
        (None, (), "image"),
        ((), ("/bin/echo", "mine"), "mine"),
        (("/bin/echo", "mine"), None, "mine"),
        (("/bin/echo", "mine"), (), "mine"),
        (("/bin/echo", "mine"), ("too",), "mine too"),
    ],
)
def test_entrypoint_and_command(
    real: Subject, entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, expected: str
) -> None:
    assert real.private is not None
    name = "perdure-test/entrypoint:1"
    tar = real.private.root / "image.tar"
    real.private.import_image(tar, name, 'ENTRYPOINT ["/bin/echo", "image"]', 'CMD ["image"]')

    async def scenario(engine: ContainerEngine) -> None:
        image = await engine.image(name, pull="never")
        spec = ContainerSpec(image=image.id, entrypoint=entrypoint, command=command, network="none", labels=LABELS)
        assert await text_of(engine, "entry", spec) == expected

    run(real, scenario)


# ------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    ("program", "code"),
    [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("sh -c 'kill -9 $$'; exit $?", 137)],
    ids=["0", "42", "255", "137"],
)
def test_exit_codes(real: Subject, program: str, code: int) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        assert (await finish(engine, "exits", await sh(engine, program)))[0] == code

    run(real, scenario)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143)])
def test_killed_from_outside(real: Subject, number: signal.Signals, code: int) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        text = "trap 'exit 143' TERM; while :; do sleep 0.02; done"
        id = await engine.create("killed", await sh(engine, text))
        await engine.start("killed")
        await asyncio.sleep(0.3)
        seen = await engine.inspect(id)
        assert seen is not None
        os.kill(seen.pid, number)
        await asyncio.wait_for(engine.wait(id), 10)
        seen = await engine.inspect(id)
        assert seen is not None
        assert (seen.exit_code, seen.oom_killed) == (code, False)

    run(real, scenario)


def test_an_end_is_seen_at_once(real: Subject) -> None:
    """Podman's own wait looks a few times in a second."""

    async def scenario(engine: ContainerEngine) -> None:
        late = []
        for _ in range(5):
            id = await engine.create("brief", await sh(engine, "sleep 0.5"))
            await engine.start("brief")
            seen = await engine.inspect(id)
            assert seen is not None
            wait = asyncio.ensure_future(engine.wait(id))
            while os.path.exists(f"/proc/{seen.pid}") and not wait.done():
                await asyncio.sleep(0.002)
            ended = time.monotonic()
            await wait
            late.append(time.monotonic() - ended)
            await engine.remove(id)
        assert sorted(late)[2] < 0.15, late

    run(real, scenario)


# ------------------------------------------------------------------------------------------------------------- logs


def test_logs_are_bytes(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(
            engine, r"printf '\377\001\000\r x\n\n\n  \tend  \n'; printf '\316' >&2; sleep 0.2; printf '\261\n' >&2"
        )
        _, lines = await finish(engine, "bytes", spec)
        out = [line.data for line in lines if line.stream == "stdout"]
        assert out[1:] == [b"", b"", b"  \tend  "]
        if real.kind == "podman":
            assert out[0] == b"\xff\x01\x00\r x"
        else:
            # Docker keeps logs as JSON: what is not UTF-8 is lost to it, the rest is not.
            assert out[0] == "\N{REPLACEMENT CHARACTER}\x01\x00\r x".encode()
        assert [line.data for line in lines if line.stream == "stderr"] in (
            [b"\xce\xb1"],
            ["\N{REPLACEMENT CHARACTER}".encode() * 2],
        )

    run(real, scenario)


@pytest.mark.parametrize("newline", ["echo", "true"])
def test_very_long_lines_come_in_pieces(real: Subject, newline: str) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(engine, f"head -c 300000 /dev/zero | tr '\\0' a; {newline}; echo short >&2")
        _, lines = await finish(engine, "long", spec)
        pieces = [line.data for line in lines if line.stream == "stdout"]
        assert b"".join(pieces) == b"a" * 300_000
        assert max(map(len, pieces)) <= 64 * 1024
        assert len(pieces) == 5
        assert [line.data for line in lines if line.stream == "stderr"] == [b"short"]

    run(real, scenario)


def test_much_output_is_whole(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("much", await sh(engine, "seq 1 50000"))
        await engine.start("much")
        lines = [int(line.data) async for line in engine.logs(id)]
        assert lines == list(range(1, 50001))

    run(real, scenario)


# ----------------------------------------------------------------------------------------------------------- images


def test_builds_an_image(real: Subject, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "note").write_text("from the context")
    dockerfile = tmp_path / "Dockerfile"  # not in the context
    base = IMAGE if real.kind == "docker" else f"localhost/{IMAGE}"
    dockerfile.write_text(f'FROM {base}\nCOPY note /note\nENTRYPOINT ["/bin/cat"]\nCMD ["/note"]\n')

    async def scenario(engine: ContainerEngine) -> None:
        image = await engine.build(str(dockerfile), str(tmp_path / "context"), "perdure-test/built:1")
        assert await engine.image("perdure-test/built:1", pull="never") == image
        assert await text_of(engine, "built", ContainerSpec(image=image.id, network="none")) == "from the context"

        dockerfile.write_text(f"FROM {base}\nCOPY missing /note\n")
        with pytest.raises(ContainerError, match="missing"):
            await engine.build(str(dockerfile), str(tmp_path / "context"), "perdure-test/built:2")
        with pytest.raises(UsageError, match="no Dockerfile"):
            await engine.build(str(tmp_path / "none"), str(tmp_path / "context"), "perdure-test/built:3")

    run(real, scenario)


def test_an_image_for_another_platform(real: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        assert await engine.image(IMAGE, pull="never", platform="linux/" + os.uname().machine)
        with pytest.raises(ImageNotFoundError, match="only, not for linux/s390x"):
            await engine.image(IMAGE, pull="never", platform="linux/s390x")

    run(real, scenario)


def test_a_network_that_is_not_there(real: Subject) -> None:
    """Docker says so at the start, with the number that also means "no such container"."""

    async def scenario(engine: ContainerEngine) -> None:
        with pytest.raises(UsageError, match="bogus"):  # noqa: PT012
            await engine.create("bogus", replace(await sh(engine, "true"), network="bogus-net"))
            await engine.start("bogus")

    run(real, scenario)


# ---------------------------------------------------------------------------------------------- machines and monitors


def test_podman_after_a_reboot_shows_it_as_never_started(podman: Engine) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("rebooted", await sh(engine, "sleep 1000"))
        await engine.start("rebooted")
        before = await engine.info()
        await asyncio.to_thread(podman.reboot)
        seen = await engine.inspect(id)
        assert seen is not None
        assert (seen.state, seen.pid, seen.exit_code) == ("created", 0, 0)
        await asyncio.wait_for(engine.wait(id), 10)
        assert (await engine.info()).id == before.id

    run(Subject("podman", podman), scenario)


def test_podman_whose_monitor_was_killed(podman: Engine) -> None:
    """The container's process ends and Podman never learns of it: `wait` returns, `inspect` names a dead process."""

    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("orphan", await sh(engine, "sleep 1000"))
        await engine.start("orphan")
        seen = await engine.inspect(id)
        assert seen is not None
        wait = asyncio.ensure_future(engine.wait(id))
        await asyncio.sleep(0.5)
        (monitor,) = [pid for pid in podman.pids() if Path(f"/proc/{pid}/comm").read_text().strip() == "conmon"]
        os.kill(monitor, signal.SIGKILL)
        os.kill(seen.pid, signal.SIGKILL)
        await asyncio.wait_for(wait, 15)
        after = await engine.inspect(id)
        assert after is not None
        if after.state == "running":
            assert not os.path.exists(f"/proc/{after.pid}")
        await engine.remove(id)
        assert await engine.inspect(id) is None

    run(Subject("podman", podman), scenario)
