"""restate: invocations of a handler with three steps by another process, one by one, from the call to the result.

The pauses between are those of perdure_latency.py. `figure` is the median, in milliseconds.
"""

from __future__ import annotations

import http.client
import json
from statistics import quantiles
from time import perf_counter, sleep

from _common import PAUSE, PAUSES, emit, parser
from _restate import HOST, add_options, served

HEADERS = {"content-type": "application/json"}


def once(connection: http.client.HTTPConnection, number: int) -> float:
    """Milliseconds until the result is here."""
    sleep(PAUSES if number % 20 == 0 else PAUSE)
    started = perf_counter()
    connection.request("POST", "/bench/three", str(number), HEADERS)
    result = json.loads(connection.getresponse().read())
    took = perf_counter() - started
    if result != 3 * number + 3:
        raise SystemExit("an invocation gave another one's result")
    return took * 1000


def main() -> None:
    arguments = parser(__doc__, count=200)
    add_options(arguments)
    options = arguments.parse_args()
    with served(options) as port:
        connection = http.client.HTTPConnection(HOST, port, timeout=60)
        for number in range(-10, 0):
            once(connection, number)
        times = [once(connection, number) for number in range(options.count)]
        connection.close()
    cuts = quantiles(times, n=100)
    emit(cuts[49], "ms", p99=cuts[98], worst=max(times), count=options.count)


if __name__ == "__main__":
    main()
