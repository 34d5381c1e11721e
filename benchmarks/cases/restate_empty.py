"""restate: invocations of a handler that does nothing, one after the other, or all at once and then awaited.

The caller is as lean as Python allows: one kept connection, or one connection per call that stands before the clock
starts. What is measured is the server and the service, not an HTTP library.
"""

from __future__ import annotations

import asyncio
import http.client
import json
from time import perf_counter

from _common import emit, parser
from _restate import HOST, add_options, served

HEADERS = {"content-type": "application/json"}


def sequential(port: int, count: int) -> float:
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    started = 0.0
    for number in range(-50, count):
        if number == 0:
            started = perf_counter()
        connection.request("POST", "/bench/empty", str(number), HEADERS)
        if json.loads(connection.getresponse().read()) != number:
            raise SystemExit("an invocation gave another one's result")
    elapsed = perf_counter() - started
    connection.close()
    return elapsed


async def invoke(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> int:
    body = str(number)
    writer.write(
        f"POST /bench/empty HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(await reader.readexactly(length))


async def at_once(port: int, count: int) -> float:
    streams = [await asyncio.open_connection(HOST, port) for _ in range(count)]
    for number, (reader, writer) in enumerate(streams[:50]):
        await invoke(reader, writer, number)
    started = perf_counter()
    results = await asyncio.gather(*(invoke(*stream, number) for number, stream in enumerate(streams)))
    elapsed = perf_counter() - started
    if results != list(range(count)):
        raise SystemExit("an invocation gave another one's result")
    for _, writer in streams:
        writer.close()
    return elapsed


def main() -> None:
    arguments = parser(__doc__, count=500)
    add_options(arguments)
    arguments.add_argument("--mode", choices=("sequential", "at-once"), default="sequential")
    options = arguments.parse_args()
    with served(options) as port:
        if options.mode == "sequential":
            elapsed = sequential(port, options.count)
        else:
            elapsed = asyncio.run(at_once(port, options.count))
    emit(options.count / elapsed, "runs/s", count=options.count, mode=options.mode)


if __name__ == "__main__":
    main()
