"""Private buckets for tests, on the loopback, in processes that end with this one.

S3 is moto's server. What `PERDURE_TEST_BUCKET` names takes its place: `azure` is Azurite (installed by
`make .venvs/azurite/.installed`), `google` is moto's server once more, behind a translator of the few words in which
Google's protocol of that kind differs, as no emulator that serves it comes from a package registry.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from email.utils import formatdate
from functools import cache
from hashlib import sha256
from hmac import digest
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import boto3
import pytest
from tests.waiting import wait_for

KIND = os.environ.get("PERDURE_TEST_BUCKET", "s3")
SCHEME = {"s3": "s3", "azure": "az", "google": "gs"}[KIND]
SECRET = "s3cret-word"

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}

# They end with their standard input, however the process that holds the other end dies.
MOTO = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
KEEPER = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
sys.stdin.read()
child.kill()
child.wait()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Endpoint(ABC):
    """A server, and the buckets that tests have in it."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        self._numbers = count(1)
        wait_for(lambda: self._answers(port), story=lambda: "the bucket's server did not start")

    def _answers(self, port: int) -> bool:
        assert self.process.poll() is None, "the bucket's server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True

    @abstractmethod
    def environment(self, url: str | None = None) -> dict[str, str]:
        """What a process needs in order to find it; `url`: at that address."""

    def use(self, monkeypatch: pytest.MonkeyPatch, url: str | None = None) -> None:
        """Let this process find it, and no other."""
        for name in [name for name in os.environ if name.startswith(("AWS_", "AZUR", "GOOGLE_"))]:
            monkeypatch.delenv(name)
        for name, value in self.environment(url).items():
            monkeypatch.setenv(name, value)

    def bucket(self) -> str:
        """A new bucket; its URL."""
        name = f"bucket-{os.getpid()}-{next(self._numbers)}"
        self.make(name)
        return f"{SCHEME}://{name}"

    @abstractmethod
    def make(self, name: str) -> None:
        """Make a bucket."""

    @abstractmethod
    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Make an object, as another program would."""

    @abstractmethod
    def get(self, bucket: str, key: str) -> bytes:
        """Read one."""

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait(30)


class S3(Endpoint):
    """moto's server."""

    def __init__(self) -> None:
        port = free_port()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        super().__init__([sys.executable, "-c", MOTO, str(port)], port, environment)
        self.client = boto3.client(
            "s3", endpoint_url=self.url, region_name=ENVIRONMENT["AWS_REGION"],
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip

    def environment(self, url: str | None = None) -> dict[str, str]:
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": url or self.url}

    def make(self, name: str) -> None:
        self.client.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=bucket, Key=key)["Body"].read())


class Azure(Endpoint):
    """Azurite."""

    program = Path(__file__).parent.parent / ".venvs/azurite/node_modules/.bin/azurite-blob"
    account = "devstoreaccount1"
    # The one that the emulator's documentation gives, and every client knows.
    key = b64decode("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")

    def __init__(self) -> None:
        assert self.program.exists(), "make .venvs/azurite/.installed"
        port = free_port()
        super().__init__(
            [sys.executable, "-c", KEEPER, str(self.program), "--blobPort", str(port), "--inMemoryPersistence",
             "--skipApiVersionCheck", "--silent", "--disableTelemetry"],
            port, dict(os.environ),
        )  # fmt: skip

    def environment(self, url: str | None = None) -> dict[str, str]:
        return {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": url or self.url}

    def make(self, name: str) -> None:
        self._ask("PUT", f"/{name}", b"", {}, "restype:container")

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._ask("PUT", f"/{bucket}/{quote(key)}", data, {"x-ms-blob-type": "BlockBlob"})

    def get(self, bucket: str, key: str) -> bytes:
        return self._ask("GET", f"/{bucket}/{quote(key)}", b"", {})

    def _ask(self, method: str, path: str, data: bytes, headers: dict[str, str], *options: str) -> bytes:
        """A request signed with the account's key (Azure's documentation, "Authorize with Shared Key")."""
        path = f"/{self.account}{path}"
        headers = {**headers, "x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        kind = "application/octet-stream" if data else ""
        plain = [method, "", "", str(len(data) or ""), "", kind, "", "", "", "", "", ""]
        named = [f"{name}:{headers[name]}" for name in sorted(headers)]
        text = "\n".join([*plain, *named, f"/{self.account}{path}", *options])
        signature = b64encode(digest(self.key, text.encode(), sha256)).decode()
        headers |= {"Authorization": f"SharedKey {self.account}:{signature}", "Content-Length": str(len(data))}
        if kind:
            headers["Content-Type"] = kind
        query = "&".join(option.replace(":", "=") for option in options)
        request = urllib.request.Request(f"{self.url}{path}?{query}", data or None, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())


class Google(S3):
    """Its XML interface has S3's requests with other names for the conditions and for the source of a copy."""

    def __init__(self) -> None:
        super().__init__()
        translator = type("Translator", (_Translator,), {"target": urlsplit(self.url).port})
        server = ThreadingHTTPServer(("127.0.0.1", 0), translator)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"

    def environment(self, url: str | None = None) -> dict[str, str]:
        account = {
            "gcs_base_url": url or self.url, "disable_oauth": True,
            "client_email": "", "private_key": SECRET, "private_key_id": "",
        }  # fmt: skip
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}


class _Translator(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: int

    def do_GET(self) -> None:
        headers = {
            name: value
            for name, value in self.headers.items()
            if not name.lower().startswith(("x-goog-", "authorization"))
        }
        # Whose it is, moto reads; the signature it does not check.
        headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"
        if self.headers.get("x-goog-if-generation-match") == "0":
            headers["If-None-Match"] = "*"
        if source := self.headers.get("x-goog-copy-source"):
            headers["x-amz-copy-source"] = source
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = HTTPConnection("127.0.0.1", self.target, timeout=20)
        path, _, query = self.path.partition("?")
        connection.request(self.command, f"{quote(unquote(path))}?{query}", data, headers)
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        if "Content-Length" not in answer.headers and answer.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the server's names

    def log_message(self, *_: Any) -> None:
        pass


_starting = threading.Lock()


def endpoint() -> Endpoint:
    """This process's endpoint, started at first use."""
    with _starting:  # `cache` alone would let two threads start one each
        return _endpoint()


@cache
def _endpoint() -> Endpoint:
    kinds: dict[str, type[Endpoint]] = {"s3": S3, "azure": Azure, "google": Google}
    return kinds[KIND]()  # type: ignore[call-arg]
