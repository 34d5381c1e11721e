"""An output directory, read with suspicion: a container made the directory, and may still be writing.

Every name is looked up beside an open directory and never followed by the kernel. Symbolic links are followed here,
as long as the target stays inside. Only regular files and directories are opened, and each is compared with the
look-up before reading, in case another file has taken the place.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from perdure.containers.redaction import Redactor
from perdure.core.ground.trees import folder_below, held

INLINE_LIMIT: Final = 16 * 1024 * 1024
"""The most bytes of one output that are read into memory."""

_MAX_LINKS: Final = 40  # as many as Linux follows
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking, should a FIFO have taken the file's place just now.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Quoted(NamedTuple):
    """Content of the directory inside a message. Secrets are struck out before the content is cut or escaped."""

    data: bytes
    intro: str = ""
    limit: int = 80

    def shown(self, redactor: Redactor) -> str:
        """The text for the message: text as text, other bytes as such."""
        head = redactor.head(self.data, self.limit)
        try:
            text = repr(head.decode())
        except UnicodeDecodeError:
            text = repr(head[:40])
        long = len(self.data) > self.limit
        return f"{self.intro}{text}… ({len(self.data):,} bytes)" if long else f"{self.intro}{text}"


class OutputRefused(Exception):
    """A file or directory that cannot be taken, and the reason.

    Attributes:
        path: the place in the output directory.
        found: what lies there.
    """

    def __init__(self, reason: str, path: str = "", found: str | Quoted = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.found = found


class Away(Protocol):
    """Files of the directory that only stand for content elsewhere."""

    def bring(self, found: os.stat_result) -> None:
        """Let the file with a state hold the content. Nothing, if the file does already."""

    def blob(self, found: os.stat_result, take: Callable[[str, int, str], bool]) -> tuple[str, int] | None:
        """Make the content of a file a blob, by `take` (hash, size, URL); hash and size. `None`: not a stand-in, or
        not taken; the file holds the content now."""


class Outputs:
    """The directory, open."""

    def __init__(self, directory: str, away: Away | None = None) -> None:
        self.directory = directory
        self.away = away
        self.fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def names(self) -> list[str]:
        return sorted(os.listdir(self.fd))

    def entry(self, *names: str) -> OutputEntry:
        """The file or directory that names lead to, links followed.

        Raises:
            OutputRefused: there is nothing, or something outside, or neither a file nor a directory.
        """
        shown = "/".join(names)
        done: list[str] = []
        ahead = deque(names)
        links = 0
        found = os.fstat(self.fd)
        with _told(shown):
            while ahead:
                part = ahead.popleft()
                if part in ("", "."):
                    continue
                if part == "..":
                    if not done:
                        raise OutputRefused(
                            "it is a symbolic link that leads out of the output directory", shown, "a link"
                        )
                    done.pop()
                    continue
                with folder_below(self.fd, done) as parent:
                    found = os.stat(part, dir_fd=parent, follow_symlinks=False)
                    if stat.S_ISLNK(found.st_mode):
                        target = os.readlink(part, dir_fd=parent)
                        links += 1
                        if target.startswith("/"):
                            reason = (
                                "it is a symbolic link with an absolute path: link relative to the link's own place"
                            )
                            raise OutputRefused(reason, shown, Quoted(os.fsencode(target), "a link to ", 200))
                        if links > _MAX_LINKS:
                            raise OutputRefused("it is a symbolic link that leads in circles", shown, "a link")
                        ahead.extendleft(reversed(target.split("/")))
                        continue
                done.append(part)
                if ahead and not stat.S_ISDIR(found.st_mode):
                    raise OutputRefused("it is a symbolic link through something that is no directory", shown, "a link")
            if not done or links:  # `..` may have changed the last look-up
                with folder_below(self.fd, done[:-1]) as parent:
                    found = os.stat(done[-1], dir_fd=parent, follow_symlinks=False) if done else os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            kind = _kind(found.st_mode)
            raise OutputRefused(f"it is {kind}, and only files and directories are taken", shown, kind)
        return OutputEntry(self, tuple(done), shown, found)


@dataclass(frozen=True, eq=False)
class OutputEntry:
    """A regular file or a directory inside.

    Attributes:
        parts: the names from the top, none a link.
        shown: the path as asked for.
        found: the state at the look-up.
    """

    outputs: Outputs
    parts: tuple[str, ...]
    shown: str
    found: os.stat_result

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.found.st_mode)

    @property
    def kind(self) -> str:
        return _kind(self.found.st_mode)

    def names(self) -> list[str]:
        """The names in a directory, in order."""
        with _told(self.shown), self.opened() as fd:
            names = sorted(os.listdir(fd))
        for name in names:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise OutputRefused(
                    f"the name {os.fsencode(name)!r} in it is not UTF-8", self.shown, "a name"
                ) from None
        return names

    def child(self, name: str) -> OutputEntry:
        below = self.outputs.entry(*self.parts, name)
        return OutputEntry(self.outputs, below.parts, f"{self.shown}/{name}", below.found)

    def read(self, limit: int, *, cut: bool = False) -> bytes:
        """The content of a file of at most `limit` bytes; of a longer file the beginning, where `cut` says so."""
        away = self.outputs.away
        if away is not None and cut and self.found.st_size > INLINE_LIMIT:
            raise OutputRefused(f"its {self.found.st_size:,} bytes are too many to be fetched", self.shown)
        if away is not None and (cut or self.found.st_size <= limit):
            away.bring(self.found)
        with _told(self.shown), self.opened() as fd:
            pieces = []
            room = limit + 1
            while room and (piece := os.read(fd, min(room, 1 << 20))):
                pieces.append(piece)
                room -= len(piece)
        if cut:
            return b"".join(pieces)[:limit]
        if not room:
            raise OutputRefused(
                f"it is larger than the {limit:,} bytes left of the {INLINE_LIMIT:,} that an output held in memory may "
                f"have: declare it as File or Dir",
                self.shown,
                f"a file of {self.found.st_size:,} bytes",
            )
        return b"".join(pieces)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of exactly the file that was looked up."""
        with folder_below(self.outputs.fd, self.parts[:-1]) as parent:
            name = self.parts[-1] if self.parts else "."
            fd = os.open(name, _FOLDER if self.is_dir else _FILE, dir_fd=parent)
        try:
            if not os.path.samestat(os.fstat(fd), self.found):
                raise OutputRefused("something else took its place while it was read", self.shown)
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def path(self) -> Iterator[str]:
        """A path to exactly the file that was looked up, for as long as the context lasts."""
        with _told(self.shown), self.opened() as fd:
            # Without such a path the plain path must do, and may be exchanged before the next open.
            yield held(fd) or os.path.join(self.outputs.directory, *self.parts)


def _kind(mode: int) -> str:
    for test, text in (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISLNK, "a link"),
    ):
        if test(mode):
            return text
    return "no regular file"


@contextmanager
def _told(shown: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise OutputRefused("it leads nowhere", shown, "nothing") from None
    except OSError as error:
        raise OutputRefused(f"it cannot be read ({error.strerror})", shown) from error
