"""`perdure logs` reads a log in pieces, and shows a terminal no control sequence but colors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.shell import Shell

from perdure.core.ground.harmless import harmless, harmless_log


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", b"\x1b[31mred\x1b[0m"),
        (b"\x1b[2Jcleared", b"\\x1b[2Jcleared"),
        (b"\x1b]0;title\x07", b"\\x1b]0;title\\x07"),
        (b"50%\r100%\r\n", b"50%\\x0d100%\r\n"),
        ("\x9b2J é ü\n".encode(), b"\\x9b2J \xc3\xa9 \xc3\xbc\n"),
        (b"text\x9b2J\xe9\x9d", b"text\\x9b2J\xe9\\x9d"),
        ("ě".encode() + b"\x9b2J", "ě".encode() + b"\\x9b2J"),
        ("safe\u202egnp.exe \u2066x".encode(), b"safe\\u202egnp.exe \\u2066x"),
        ("漢字 👍 \u200f".encode(), "漢字 👍 \u200f".encode()),
        (b"\x9bm the rest of a sequence", b"\\x9bm the rest of a sequence"),
        (b"tab\tline\n", b"tab\tline\n"),
        (b"\x1b[" + b"1;" * 40 + b"m", b"\\x1b[" + b"1;" * 40 + b"m"),
    ],
)
def test_a_log_keeps_its_colors_and_no_other_sequence(data: bytes, shown: bytes) -> None:
    assert harmless_log(data) == shown


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\x07", "\x9b", "a\rb", "\u202e", "\u061c", "\u2066", "\ud800", "\x7f", "\x00"]
)
def test_a_message_shows_every_control_character(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert "\\" in shown


def test_tabs_newlines_and_letters_stay() -> None:
    assert harmless("a\tb\nc é 漢 👍") == "a\tb\nc é 漢 👍"


def _with_log(shell: Shell, size: int) -> Path:
    """A run with the log of a container, as the container's driver leaves it."""
    assert shell("run", "wf.py", "text", "--name", "one").returncode == 0
    script = (
        "from perdure import runtime; from perdure.api.looking import find; import os\n"
        "folder = os.path.join(runtime.container_logs(), find('one').uid.hex()); os.makedirs(folder); print(folder)\n"
    )
    folder = subprocess.run(
        [sys.executable, "-c", script], cwd=shell.path, env=shell.env, capture_output=True, text=True, check=True
    ).stdout.strip()
    path = Path(folder) / "1.1.log"
    with path.open("wb") as file:
        file.truncate(size)  # without blocks on disk
        file.seek(size)
        file.write(b"the end\n")
    return path


def test_a_log_that_is_larger_than_memory_is_printed(shell: Shell) -> None:
    size = 1 << 30
    _with_log(shell, size)
    command = [sys.executable, "-m", "perdure", "logs", "one"]
    limit = 700 << 20
    done = subprocess.Popen(
        command, cwd=shell.path, env=shell.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.stdout is not None
    assert done.stderr is not None
    total, last = 0, b""
    while piece := done.stdout.read(1 << 20):
        total += len(piece)
        last = piece[-8:]
    assert (total, last) == (size + 8, b"the end\n"), done.stderr.read()
    assert done.wait(60) == 0
    done.stdout.close()
    done.stderr.close()


def test_a_terminal_gets_a_log_without_control_sequences(shell: Shell) -> None:
    import pty

    path = _with_log(shell, 0)
    path.write_bytes(b"\x1b]0;owned\x07 text\n")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "perdure", "logs", "one"]
    subprocess.run(command, cwd=shell.path, env=shell.env, stdout=child, stderr=subprocess.DEVNULL, check=True)
    os.close(child)
    data = os.read(parent, 1000)
    os.close(parent)
    assert data.startswith(b"\\x1b]0;owned\\x07 text")
    assert shell("logs", "one").stdout == "\x1b]0;owned\x07 text\n"
