"""dbos: from `send` in this process to the line behind `recv` in another one, in milliseconds.

Beside that, from an enqueueing to the first line of the workflow, and from the last line to the result here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dbos import DBOSClient

from _common import parser
from _dbos import add_options, store
from _dbos_service import QUEUE
from _told import measure

POLLING = 1.0
"""Seconds: the default of its queues and of waits for results, and on SQLite of messages."""


class Dbos:
    def __init__(self, client: DBOSClient) -> None:
        self.client = client

    def listen(self, count: int, address: str) -> None:
        self.listener = self.client.enqueue({"queue_name": QUEUE, "workflow_name": "listener"}, count, address)

    def send(self, number: int, word: str) -> None:
        self.client.send(self.listener.get_workflow_id(), number, "go")

    def submit(self) -> Callable[[], Sequence[float]]:
        return self.client.enqueue({"queue_name": QUEUE, "workflow_name": "work"}).get_result  # type: ignore[no-any-return]


@contextmanager
def served(url: str) -> Iterator[None]:
    """The program in a process of its own, up when the block begins and gone when the block ends."""
    service = Path(__file__).with_name("_dbos_service.py")
    command = [sys.executable, str(service), "--database", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit("the program did not start")
            yield
        finally:
            process.kill()


def main() -> None:
    arguments = parser(__doc__, count=20)
    arguments.add_argument("--runs", type=int, default=20, help="how many workflows (20)")
    add_options(arguments)
    options = arguments.parse_args()
    with store(options) as url, served(url):
        client = DBOSClient(system_database_url=url)
        measure(Dbos(client), options.count, options.runs, POLLING)
        client.destroy()


if __name__ == "__main__":
    main()
