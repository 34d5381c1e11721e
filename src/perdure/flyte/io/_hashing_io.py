"""Digests that users choose for their files and data frames, as names of cached content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class HashMethod(Protocol):
    """What a digest can do."""

    def update(self, data: Any, /) -> None:
        """Take in more content."""

    def result(self) -> str:
        """The digest as text."""

    def reset(self) -> None:
        """Begin from the start."""


class HashFunction:
    """A function of the content as a digest."""

    def __init__(self, fn: Callable[[Any], str]) -> None:
        self._fn = fn
        self._value: str | None = None

    @classmethod
    def from_fn(cls, fn: Callable[[Any], str]) -> HashFunction:
        """The digest that `fn` computes from the content."""
        return cls(fn)

    def update(self, data: Any) -> None:
        """Compute the digest of the content."""
        self._value = self._fn(data)

    def result(self) -> str:
        """The digest of the content of the last `update`."""
        return self._value or ""

    def reset(self) -> None:
        """Forget the digest."""
        self._value = None


class HashlibAccumulator:
    """A digest of `hashlib`, such as `HashlibAccumulator.from_hash_name("sha256")`."""

    def __init__(self, h: Any) -> None:
        self._made = h.copy
        self._hash = h

    @classmethod
    def from_hash_name(cls, name: str) -> HashlibAccumulator:
        """The digest of that name."""
        return cls(hashlib.new(name))

    def update(self, data: Any, /) -> None:
        """Take in more content."""
        self._hash.update(data)

    def result(self) -> Any:
        """The digest in hexadecimal."""
        return self._hash.hexdigest()

    def reset(self) -> None:
        """Begin from the start."""
        self._hash = hashlib.new(self._hash.name)


class PrecomputedValue:
    """A digest that is known already."""

    def __init__(self, value: str) -> None:
        self._value = value

    def update(self, data: Any, /) -> None:
        """Nothing: the digest is known."""

    def result(self) -> str:
        """The digest."""
        return self._value

    def reset(self) -> None:
        """Nothing: the digest is known."""


def as_method(method: HashMethod | str | None) -> HashMethod | None:
    """The digest for a parameter `hash_method`; text is the digest itself."""
    return PrecomputedValue(method) if isinstance(method, str) else method


class Accumulated:
    """What is written or read, counted in a digest piece by piece."""

    def __init__(
        self, fh: Any, accumulator: HashMethod, *, encoding: str | None = None, errors: str = "strict"
    ) -> None:
        self._fh = fh
        self._accumulator = accumulator
        self._encoding = encoding or "utf-8"
        self._errors = errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fh, name)

    def count(self, data: Any) -> Any:
        """Take in a piece, and return it."""
        self._accumulator.update(data.encode(self._encoding, self._errors) if isinstance(data, str) else data)
        return data

    def result(self) -> Any:
        """The digest so far."""
        return self._accumulator.result()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._fh.close()


class HashingWriter(Accumulated):
    """A stream that computes the digest of what is written."""

    def write(self, data: Any) -> Any:
        """Write."""
        return self._fh.write(self.count(data))

    def writelines(self, lines: Any) -> None:
        """Write lines."""
        for line in lines:
            self.write(line)


class HashingReader(Accumulated):
    """A stream that computes the digest of what is read."""

    def read(self, size: int = -1) -> Any:
        """Read."""
        return self.count(self._fh.read(size))

    def readline(self, size: int = -1) -> Any:
        """Read a line."""
        return self.count(self._fh.readline(size))

    def readlines(self, hint: int = -1) -> list[Any]:
        """Read lines."""
        return [self.count(line) for line in self._fh.readlines(hint)]

    def __iter__(self) -> Any:
        return map(self.count, self._fh)


class AsyncHashingWriter(Accumulated):
    """A stream with asynchronous methods that computes the digest of what is written."""

    async def write(self, data: Any) -> Any:
        """Write."""
        return await self._fh.write(self.count(data))

    async def writelines(self, lines: Any) -> None:
        """Write lines."""
        for line in lines:
            await self.write(line)


class AsyncHashingReader(Accumulated):
    """A stream with asynchronous methods that computes the digest of what is read."""

    async def read(self, size: int = -1) -> Any:
        """Read."""
        return self.count(await self._fh.read(size))

    async def readline(self, size: int = -1) -> Any:
        """Read a line."""
        return self.count(await self._fh.readline(size))

    async def readlines(self, hint: int = -1) -> list[Any]:
        """Read lines."""
        return [self.count(line) for line in await self._fh.readlines(hint)]
