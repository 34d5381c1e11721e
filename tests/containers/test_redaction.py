"""P10: a container's secrets stay out of the journal, messages and logs, wherever a text comes from and is cut."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shlex
import struct
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pydantic
import pytest

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers._wire import Lines
from perdure.containers.copilot import Interface, check_error_file
from perdure.containers.discovery import open_engine
from perdure.containers.engine import LineCutter
from perdure.containers.logs import LogSink
from perdure.containers.program import Secrets
from perdure.containers.redaction import Redactor, bare_url, credentials_of
from perdure.errors import ContainerError, EngineUnavailableError, OutputMissingError, OutputParseError
from perdure.io import File

SECRET = "s3cr3t-'k\"ey\\π/with+signs"


@pytest.fixture(scope="module", autouse=True)
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    runtime.init(str(tmp_path_factory.mktemp("store") / "perdure.db"))
    yield
    runtime.init()


@dataclass
class Strict:
    key: str

    def __post_init__(self) -> None:
        raise ValueError(f"{self.key!r} does not open")


class Model(pydantic.BaseModel):
    key: int


def fragments(secret: str) -> list[str]:
    """Any eight characters of the secret, as they are and as messages escape them."""
    forms = [secret, repr(secret)[1:-1], ascii(secret)[1:-1]]
    return [form[at : at + 8] for form in forms for at in range(len(form) - 7)]


def assert_hidden(text: str) -> None:
    assert [fragment for fragment in fragments(SECRET) if fragment in text] == []


@pytest.mark.parametrize(
    ("type", "content"),
    [
        (int, SECRET),
        (int, "x" * (80 - len(SECRET) // 2) + SECRET + " and more " * 20),
        (float, SECRET * 10),
        (list[int], f'["{"x" * 60}{SECRET}"]'),
        (bool | None, SECRET),
        (Strict, '{"key": "' + SECRET.replace("\\", "\\\\").replace('"', '\\"') + '"}'),
        (Model, '{"key": "' + SECRET.replace("\\", "\\\\").replace('"', '\\"') + "x" * 100 + '"}'),
    ],
)
def test_quoted_content_of_an_output_hides_secrets(type: Any, content: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(OutputParseError) as caught:
        Interface({}, {"x": type}, files=ContainerFiles()).collect(str(tmp_path), redactor=Redactor([SECRET]))
    assert_hidden(str(caught.value))
    assert_hidden(str(caught.value.found))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("made", ["file name", "many names", "link target", "long link target", "name in a list"])
def test_names_and_link_targets_hide_secrets(made: str, tmp_path: Path) -> None:
    secret = SECRET.replace("/", "-")
    kind: Any = int
    match made:
        case "file name":
            (tmp_path / f"y{secret}").touch()
        case "many names":
            (tmp_path / f"x.{secret}").touch()
            (tmp_path / "x.other").touch()
        case "link target":
            (tmp_path / "x").symlink_to(f"/{secret}")
        case "long link target":
            (tmp_path / "x").symlink_to("/" + "a" * 190 + secret + "b" * 50)
        case _:
            kind = list[int]
            (tmp_path / "x").mkdir()
            (tmp_path / "x" / secret).touch()
    with pytest.raises((OutputParseError, OutputMissingError)) as caught:
        Interface({}, {"x": kind}, files=ContainerFiles()).collect(str(tmp_path), redactor=Redactor([secret]))
    text = str(caught.value) + str(caught.value.found)
    assert [part for part in fragments(secret) if part in text] == []


ENCODED = "s3cr3t 'k\"ey'\\<π>&/with+signs?and=more~text"
PEM = "-----BEGIN KEY-----\n" + "\n".join(f"{n:03}+/Ab{'xyz' * 19}" for n in range(12)) + "\n-----END KEY-----\n"


def encodings(secret: str) -> dict[str, str]:
    """The secret as programs print it."""
    data = secret.encode()
    return {
        "plain": secret,
        "repr": repr(secret),
        "repr in a text with both quotes": repr(f"'\"{secret}"),
        "repr of bytes": repr(b"'\"" + data),
        "ascii": ascii(f"'\"{secret}"),
        "json": json.dumps({"a": secret}),
        "json as Go writes it": json.dumps({"a": secret}, ensure_ascii=False)
        .replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
        "json as PHP writes it": json.dumps(secret).replace("/", "\\/"),
        "html": html.escape(f"<a>{secret}"),
        "shell": shlex.quote(f"x {secret}"),
        "traced shell": "'x" + secret.replace("'", "'\\''") + "'",
        "url": f"https://host/?key={quote(secret, safe='')}&x=1",
        "path of a url": f"https://host/{quote(secret)}/x",
        "form": f"key={quote_plus(secret)}",
        "url in small letters": re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
        "hex": data.hex(),
        "HEX": data.hex().upper(),
        **{f"base64 behind {n} bytes": b64encode(b"u" * n + data).decode() for n in range(4)},
        **{f"base64 within {n} bytes": b64encode(b"user:" + data + b"y" * n).decode() for n in range(1, 4)},
        "base64 for urls": urlsafe_b64encode(b":" + data).decode(),
    }  # fmt: skip


@pytest.mark.parametrize("how", encodings(ENCODED))
def test_a_secret_is_struck_out_as_programs_encode_it(how: str) -> None:
    """Nine characters in a row at most, where the encoding mixes the first and last of the secret with other text."""
    printed = encodings(ENCODED)[how]
    redactor = Redactor([ENCODED])
    for shown in (redactor.text(f"a {printed} b"), redactor.data(f"a {printed} b".encode()).decode()):
        assert "***" in shown
        assert shown.startswith("a ")
        assert shown.endswith(" b")
        around = encodings("")[how]
        pieces = [printed[at : at + 9] for at in range(len(printed) - 8)]
        assert not [piece for piece in pieces if piece in shown and piece not in around]


@pytest.mark.parametrize(
    "how", ["lines", "lines with CRLF", "one line", "base64", "base64 -w64", "base64 of each part"]
)
def test_a_secret_of_several_lines_is_struck_out_line_by_line(how: str, tmp_path: Path) -> None:
    encoded = b64encode(PEM.encode()).decode()
    wide = {"base64": 76, "base64 -w64": 64}
    match how:
        case "lines":
            printed = PEM
        case "lines with CRLF":
            printed = PEM.replace("\n", "\r\n")
        case "one line":
            printed = json.dumps({"key": PEM})
        case "base64 of each part":
            printed = "Basic " + b64encode(b"user:" + PEM.encode()).decode()
        case _:
            printed = "\n".join(encoded[at : at + wide[how]] for at in range(0, len(encoded), wide[how]))
    sink = LogSink(str(tmp_path / "log"), None, Secrets({}, {"/key": PEM.encode()}).redactor())
    lines = Lines()
    data = printed.encode() + b"\n"
    for piece in lines.feed(struct.pack(">BxxxL", 1, len(data)) + data):
        sink.take(piece)
    sink.close()
    text = (tmp_path / "log").read_text()
    assert not [line for line in PEM.split() if len(line) > 10 and line in text]
    inner = encoded[8:-8]
    assert not [at for at in range(len(inner) - 12) if inner[at : at + 12] in text]


@pytest.mark.parametrize("cut", range(1, 60, 2))
def test_a_cut_within_one_of_several_secrets_shows_no_part_of_any(cut: int) -> None:
    """The longest part counts, of all secrets and forms: a shorter one that fits as well hides too little."""
    first, second = "Zq-the-first-secret-that-is-long-and-ends-otherwise", "xyz-the-second-secret-ends-in-Z"
    redactor = Redactor([first, second])
    data = f"log: {second}{first}++".encode()
    head, tail = redactor.data(data[:cut], closes=False), redactor.data(data[cut:], opens=False)
    for secret in (first, second):
        assert not [at for at in range(len(secret) - 2) if secret[at : at + 3].encode() in head + b"|" + tail]


def test_secrets_that_overlap_are_struck_out_whole() -> None:
    redactor = Redactor(["abcdef", "defghi", "ghi-jk"])
    assert redactor.text("x abcdefghi-jk y") == "x *** y"
    assert redactor.text("abcdefabcdef") == "***"
    assert redactor.data(b"1abcdefghi") == b"1***"


def test_a_large_secret_and_long_lines_take_little_time() -> None:
    """Linear: a service account's file of 200 KB, and a line that repeats the begin of the secret."""
    secret = "{" + json.dumps({f"key{n}": "v" * 90 for n in range(2000)}) + "}"
    begun = time.process_time()
    redactor = Secrets({"A": secret}, {"/f": secret.encode()}).redactor()
    line = (secret[:20] * 4000)[: LineCutter.LONGEST].encode()
    for _ in range(20):
        redactor.data(line, opens=False, closes=False)
    assert time.process_time() - begun < 20


def test_the_recorded_name_of_a_file_hides_secrets(tmp_path: Path) -> None:
    (tmp_path / "x.token-abcdef").write_text("content")
    made = Interface({}, {"x": File}, files=ContainerFiles())
    [found] = made.collect(str(tmp_path), redactor=Redactor(["token-abcdef"]))
    assert found.name == "x.***"


@pytest.mark.parametrize("before", [0, 100, 64 * 1024 - 10, 64 * 1024 - 1])
def test_an_error_file_hides_secrets_also_at_the_cut(before: int, tmp_path: Path) -> None:
    (tmp_path / "_ERROR").write_text("x" * before + SECRET + "y" * 70_000)
    report = check_error_file(str(tmp_path), Redactor([SECRET]))
    assert report is not None
    assert_hidden(report.text)
    assert report.text.startswith("x" * before + "*")


@pytest.mark.parametrize("before", range(LineCutter.LONGEST - len(SECRET) - 2, LineCutter.LONGEST + 2, 3))
def test_a_long_log_line_hides_a_secret_at_the_cut(before: int, tmp_path: Path) -> None:
    """A line is logged in pieces of 64 KiB; neither piece may show its part of the secret."""
    sink = LogSink(str(tmp_path / "log"), None, Secrets({"KEY": SECRET}).redactor())
    data = b"x" * before + SECRET.encode() + b"y" * 1000 + b"\n"
    lines = Lines()
    for piece in lines.feed(struct.pack(">BxxxL", 1, len(data)) + data):
        sink.take(piece)
    sink.close()
    text = (tmp_path / "log").read_bytes().decode("utf-8", "replace")
    for at in range(len(SECRET) - 2):
        assert SECRET[at : at + 3] not in text
    assert text.count("x") >= before - 3
    assert text.count("y") >= 997


@pytest.mark.parametrize("size", [1, 7, 1000, 65_536, 65_537])
def test_pieces_of_a_line_do_not_depend_on_how_bytes_arrive(size: int) -> None:
    data = b"short\n" + b"a" * 200_000 + b"\n" + b"b" * 65_536 + b"\n\nlast"
    whole, parts = LineCutter("stdout"), LineCutter("stdout")
    expected = [*whole.feed(data), *whole.end()]
    found = [piece for at in range(0, len(data), size) for piece in parts.feed(data[at : at + size])]
    assert [*found, *parts.end()] == expected
    assert b"".join(piece.data + b"\n" * piece.closes for piece in expected) == data + b"\n"


def test_an_exception_is_cleaned_in_every_field() -> None:
    error = ContainerError(f"engine: {SECRET}", image=SECRET, command=["a", SECRET], log_tail=[SECRET])
    error.add_note(f"note {SECRET}")
    error.__cause__ = ValueError(SECRET)
    Redactor([SECRET]).clean(error)
    assert_hidden(f"{error!r} {vars(error)}")
    assert error.__cause__ is None
    assert error.command == ["a", "***"]


def test_without_secrets_nothing_changes() -> None:
    error = ContainerError("engine: broken", command=["a"])
    cause = error.__cause__ = ValueError("why")
    Redactor(["", "abc"]).clean(error)
    assert (str(error), error.__cause__) == ("engine: broken", cause)
    assert Redactor().data(b"a" * 10, opens=False, closes=False) == b"a" * 10


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("tcp://user:pw@host:2375", "tcp://host:2375"),
        ("https://user:p@w@host/x?token=pw", "https://host/x"),
        ("tcp:user:pw@host", "tcp:host"),
        ("user:pw@host", "user:host"),
        ("pw@host", "host"),
        ("unix:///run/a@b.sock", "unix:///run/a@b.sock"),
        ("kubernetes://flows?copilot=i", "kubernetes://flows"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert bare_url(url) == shown


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("tcp://user:pa%20ss@host", ["user:pa%20ss", "user:pa ss", "pa%20ss", "pa ss"]),
        ("tcp:user:p@w@host", ["tcp:user:p@w", "tcp:user:p@w", "user:p@w", "user:p@w"]),
        ("unix:///a@b", []),
        ("https://host/x@y", ["host/x", "host/x"]),
        ("http://host:2375", []),
    ],
)
def test_the_credentials_of_a_url(url: str, found: list[str]) -> None:
    assert credentials_of(url) == found


@pytest.mark.parametrize("url", ["http://user:sekret-pw@127.0.0.1:9", "https://user:sekret-pw@127.0.0.1:9"])
def test_a_silent_engine_is_named_without_its_password(url: str) -> None:
    """The client's own message quotes the whole URL."""
    with pytest.raises(EngineUnavailableError) as caught:
        asyncio.run(open_engine(url, {}))
    assert "127.0.0.1:9" in str(caught.value)
    assert "sekret" not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


def test_log_files_are_for_their_owner(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        LogSink(str(tmp_path / "logs" / "a" / "1.1.log"), None, Redactor()).close()
    finally:
        os.umask(old)
    assert (tmp_path / "logs" / "a" / "1.1.log").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs" / "a").stat().st_mode & 0o777 == 0o700
