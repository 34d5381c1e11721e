"""Opening paths: streams with asynchronous methods, compression."""

from __future__ import annotations

import builtins
from typing import Any

from ...errors import UsageError

_SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}


class AsyncStream:
    """A stream of a file on this machine with asynchronous methods.

    The methods do not leave the event loop: a local file answers at once, and the order of steps stays the same in
    every execution.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        if not callable(found) or name in ("fileno", "isatty", "readable", "seekable", "writable"):
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            return found(*args, **kwargs)

        return call

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> Any:
        line = self._stream.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stream.close()


def opened(path: str, mode: str, compression: str | None, options: dict[str, Any]) -> Any:
    """A stream of a local file.

    Args:
        path: the file.
        mode: as for `open`.
        compression: `"gzip"`, `"bz2"`, `"xz"`, `"infer"` (by the suffix) or `None`.
        options: `encoding`, `errors` and `newline` for text.
    """
    if compression == "infer":
        compression = next((kind for suffix, kind in _SUFFIXES.items() if path.endswith(suffix)), None)
    known = {name: options[name] for name in ("encoding", "errors", "newline") if name in options}
    if compression is None:
        return builtins.open(path, mode, **known)
    modules = {"gzip": "gzip", "bz2": "bz2", "xz": "lzma"}
    if compression not in modules:
        raise UsageError(f"compression={compression!r} is not known: use one of {', '.join(modules)} or 'infer'")
    from importlib import import_module

    return import_module(modules[compression]).open(path, mode, **known)
