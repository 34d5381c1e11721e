"""What a container writes, on its way to the file and the terminal."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from perdure.containers._wire import config
from perdure.containers.engine import ContainerSpec, LogLine
from perdure.containers.logs import LIMIT, LogSink
from perdure.containers.program import Secrets
from perdure.containers.redaction import NO_SECRETS


def test_a_secret_of_several_lines_is_struck_out_of_each(tmp_path: Path) -> None:
    """A log is read by lines."""
    secrets = Secrets({"KEY": "first-half\nsecond-half\n"}, {"/key": b"in a file\nof two lines \xff\n"})
    sink = LogSink(str(tmp_path / "log"), None, secrets.redactor())
    for line in (b"it is first-half", b"second-half it is", b"in a file", b"of two lines \xff!"):
        sink.take(LogLine("stdout", line))
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"it is ***\n*** it is\n***\n***!\n"
    assert list(sink.tail) == ["it is ***", "*** it is", "***", "***!"]


@pytest.mark.parametrize("broken", ["closed", "none"])
def test_a_terminal_that_is_gone_is_not_the_containers_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if broken == "closed" else None)
    sink = LogSink(str(tmp_path / "log"), "[x] ", NO_SECRETS)
    sink.take(LogLine("stdout", b"one"))
    sink.take(LogLine("stdout", b"two"))
    sink.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_long_log_is_read_back_in_no_time(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"a line of a log, which is not very long\n" * 200_000)
    begun = time.process_time()
    sink = LogSink(str(tmp_path / "log"), None, NO_SECRETS)
    took = time.process_time() - begun
    assert sink.lines == 200_000
    sink.close()
    assert took < 2.0


@pytest.mark.parametrize("again", [False, True])
def test_a_log_has_a_limit_and_says_so(tmp_path: Path, again: bool) -> None:
    """A program that logs without end does not fill the disk; error messages still get the last lines."""
    path = str(tmp_path / "log")
    sink = LogSink(path, None, NO_SECRETS, limit=1000)
    for number in range(100):
        if again and number in (50, 90):
            # As a process that joins the container after a crash.
            sink.close()
            sink = LogSink(path, None, NO_SECRETS, limit=1000)
        sink.take(LogLine("stdout", b"line %04d of a log" % number))
    sink.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[:2] == ["line 0000 of a log", "line 0001 of a log"]
    assert lines[-1].startswith("... the log is cut here")
    assert len(lines) == 53
    assert sink.tail[-1] == "line 0099 of a log"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x1b[2J\x1b[1;1H", "\\x1b[2J\\x1b[1;1H"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"over\rwritten", "over\\x0dwritten"),
        (b"\xc2\x9b2J", "\\x9b2J"),
    ],
)
def test_escape_sequences_of_a_container_do_not_reach_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], data: bytes, shown: str
) -> None:
    """Colors stay; the file has the bytes as written."""
    sink = LogSink(str(tmp_path / "log"), "[x] ", NO_SECRETS)
    sink.take(LogLine("stderr", data))
    sink.close()
    assert capfd.readouterr().err == f"[x] {shown}\n"
    assert (tmp_path / "log").read_bytes() == data + b"\n"


def test_dockers_own_log_is_limited_beyond_perdures_own() -> None:
    host = config(ContainerSpec("image"), podman=False)["HostConfig"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "512m", "max-file": "2"}}
    assert LIMIT < 512 << 20
