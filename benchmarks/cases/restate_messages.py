"""restate: from the HTTP call that resolves an awakeable to the line behind the wait, in milliseconds.

Beside that, from an invocation to the first line of the handler, and from the last line to the result here. All calls
go over one kept connection.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from typing import Any

from _common import parser
from _restate import HOST, add_options, served
from _told import PATIENCE, measure

HEADERS = {"content-type": "application/json"}


class Restate:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)

    def listen(self, count: int, address: str) -> None:
        self._post("/bench/listener/send", [count, address])
        self._answer()

    def send(self, number: int, word: str) -> None:
        self._post(f"/restate/awakeables/{word}/resolve", number)
        self._answer()

    def submit(self) -> Callable[[], Sequence[float]]:
        self._post("/bench/work", 0)
        return self._answer

    def _post(self, path: str, body: object) -> None:
        self.connection.request("POST", path, json.dumps(body), HEADERS)

    def _answer(self) -> Any:
        answer = self.connection.getresponse()
        text = answer.read().decode()
        if not 200 <= answer.status < 300:
            raise SystemExit(f"restate answers {answer.status}: {text}")
        return json.loads(text) if text else None


def main() -> None:
    arguments = parser(__doc__, count=200)
    arguments.add_argument("--runs", type=int, default=100, help="how many invocations (100)")
    add_options(arguments)
    options = arguments.parse_args()
    with served(options) as port:
        measure(Restate(port), options.count, options.runs)


if __name__ == "__main__":
    main()
