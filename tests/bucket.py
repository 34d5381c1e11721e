"""A private S3 endpoint for tests: moto's server, in a process of its own that ends with this one, on the loopback."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from functools import cache
from itertools import count

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "s3cret-word", "AWS_REGION": "us-east-1"}

# Ends with its standard input, however the process that holds the other end dies.
SERVER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


class Endpoint:
    """The server, and the buckets that tests have in it."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.close)
        self._numbers = count(1)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < end, "the S3 endpoint did not start"
                time.sleep(0.05)

    def environment(self) -> dict[str, str]:
        """What a process needs in order to find it."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def bucket(self) -> str:
        """A new bucket; its URL."""
        name = f"bucket-{os.getpid()}-{next(self._numbers)}"
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        return f"s3://{name}"

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait(30)


_starting = threading.Lock()


def endpoint() -> Endpoint:
    """This process's endpoint, started at first use."""
    with _starting:  # `cache` alone would let two threads start one each
        return _endpoint()


@cache
def _endpoint() -> Endpoint:
    return Endpoint()
