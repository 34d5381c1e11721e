"""Record what a program writes to its disk: its system calls under `strace`, to be played to a `Disk`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .disk import Disk, Inode, Names, Resize, Write

CALLS = (
    "openat,open,creat,write,pwrite64,pwritev,pwritev2,writev,ftruncate,truncate,fallocate,fsync,fdatasync,rename,renameat,"
    "renameat2,unlink,unlinkat,link,linkat,mkdir,mkdirat,rmdir,symlink,symlinkat,lseek,close,copy_file_range,sendfile,"
    "dup,dup2,dup3"
)
"""Every call that changes a file or a name, and those that say which file a descriptor means."""

_LINE = re.compile(
    r"^(\d+) +(?:(\w+)\((.*)\) += (-?\d+)(.*)|<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)(.*)|(\w+)\((.*) <unfinished)"
)
_FD = re.compile(r"^(-?\d+|AT_FDCWD)<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Call(NamedTuple):
    """One system call that has succeeded."""

    name: str
    arguments: str
    result: int
    rest: str


def record(command: list[str], output: Path, **options: object) -> list[Call]:
    """Execute `command` under strace and return its system calls, in the order in which they returned."""
    words = ["strace", "-f", "-y", "-xx", "-s", "100000000", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(output)]
    done = subprocess.run([*words, *command], capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return list(parsed(output.read_text()))


def parsed(text: str) -> Iterator[Call]:
    """The calls that succeeded, of strace's output.

    A call takes its place where it returned. A `close` takes its place where it began: the kernel frees the descriptor
    at once, and another thread may have the same number before the `close` has returned.
    """
    begun: dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        pid, name, arguments, result, rest, again, more, result_then, rest_then, cut, first = found.groups()
        if cut == "close":
            yield Call(cut, first, 0, "")
        elif cut is not None:
            begun[pid] = first
        elif again == "close":
            continue
        elif again is not None:
            if int(result_then) >= 0:
                yield Call(again, begun.pop(pid, "") + more, int(result_then), rest_then)
        elif int(result) >= 0:
            yield Call(name, arguments, int(result), rest)


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class Player:
    """Plays recorded calls to a `Disk` that stands for the directory `root`, and hands over what was written to the
    `outside` file, which no power cut affects."""

    def __init__(self, root: Path, outside: Path, names: Names) -> None:
        self.disk = Disk()
        self.outside = b""
        self._names = names
        self._root = str(root)
        self._outside = str(outside)
        self._files: dict[int, Inode] = {}
        self._offsets: dict[int, int] = {}
        self._appends: set[int] = set()

    def play(self, call: Call) -> bool:
        """Apply one call; whether it changed anything on the disk or outside."""
        handler = getattr(self, f"_{call.name}", None)
        return bool(handler(call)) if handler is not None else False

    # -- names -------------------------------------------------------------------------------------------------------

    def _inside(self, path: str) -> str | None:
        """The name below the root, or `None`."""
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(self._root + "/") else None

    def _paths(self, arguments: str) -> list[str | None]:
        """The names in the arguments of a call, each joined to the directory that stands before it."""
        found: list[str | None] = []
        folder = ""
        for word in arguments.split(", "):
            fd, text = _FD.match(word), _TEXT.match(word)
            if fd is not None:
                folder = _decoded(fd[2]).decode()
            elif text is not None:
                path = _decoded(text[1]).decode()
                found.append(self._inside(path if path.startswith("/") else f"{folder or self._root}/{path}"))
        return found

    def _openat(self, call: Call) -> bool:
        target = re.match(r"<([^>]*)>", call.rest)
        if target is None:
            return False
        path = _decoded(target[1]).decode()
        self._files.pop(call.result, None)
        name = self._inside(path)
        if path == self._outside:
            return False
        if name is None or "O_DIRECTORY" in call.arguments:
            return False
        changed = False
        inode = self.disk.names.get(name)
        if inode is None:
            if "O_CREAT" not in call.arguments:
                return False
            inode = self.disk.create(name)
            changed = True
        self._files[call.result] = inode
        self._offsets[call.result] = 0
        (self._appends.add if "O_APPEND" in call.arguments else self._appends.discard)(call.result)
        if "O_TRUNC" in call.arguments and inode.now:
            inode.change(Resize(0))
            changed = True
        return changed

    def _close(self, call: Call) -> bool:
        fd = _FD.match(call.arguments)
        if fd is not None:
            self._files.pop(int(fd[1]), None)
        return False

    def _mkdir(self, call: Call) -> bool:
        [name] = self._paths(call.arguments)
        if name:
            self.disk.make_directory(name)
        return bool(name)

    _mkdirat = _mkdir

    def _unlink(self, call: Call) -> bool:
        [name] = self._paths(call.arguments)
        if name and name in self.disk.names:
            self.disk.remove(name)
        return bool(name)

    _unlinkat = _rmdir = _unlink

    def _rename(self, call: Call) -> bool:
        old, new = self._paths(call.arguments)
        if old and new and old in self.disk.names:
            self.disk.rename(old, new)
        return bool(old or new)

    _renameat = _renameat2 = _rename

    def _link(self, call: Call) -> bool:
        old, new = self._paths(call.arguments)
        if old and new:
            self.disk.link(old, new)
        return bool(new)

    _linkat = _link

    # -- content -----------------------------------------------------------------------------------------------------

    def _file(self, word: str) -> tuple[int, Inode | None, str]:
        fd = _FD.match(word)
        if fd is None or fd[1] == "AT_FDCWD":
            return -1, None, ""
        return int(fd[1]), self._files.get(int(fd[1])), _decoded(fd[2]).decode(errors="replace")

    def _put(self, fd: int, inode: Inode, data: bytes) -> None:
        offset = len(inode.now) if fd in self._appends else self._offsets[fd]
        inode.change(Write(offset, data))
        self._offsets[fd] = offset + len(data)

    def _write(self, call: Call) -> bool:
        fd, inode, path = self._file(call.arguments)
        data = b"".join(_decoded(text) for text in _TEXT.findall(call.arguments))[: call.result]
        if path == self._outside:
            self.outside += data
            return True
        if inode is None:
            return False
        self._put(fd, inode, data)
        return True

    _writev = _write

    def _pwrite64(self, call: Call) -> bool:
        _, inode, _ = self._file(call.arguments)
        if inode is None:
            return False
        data = b"".join(_decoded(text) for text in _TEXT.findall(call.arguments))[: call.result]
        inode.change(Write(int(call.arguments.rpartition(", ")[2]), data))
        return True

    _pwritev = _pwrite64

    def _lseek(self, call: Call) -> bool:
        fd, inode, _ = self._file(call.arguments)
        if inode is not None:
            self._offsets[fd] = call.result
        return False

    def _copy_file_range(self, call: Call) -> bool:
        words = call.arguments.split(", ")
        from_fd, source, _ = self._file(words[0])
        to_fd, target, _ = self._file(words[2])
        assert words[1] == words[3] == "NULL", call
        if source is not None:
            start = self._offsets[from_fd]
            self._offsets[from_fd] = start + call.result
        if target is None:
            return False
        assert source is not None, "content from outside the recorded directory"
        self._put(to_fd, target, bytes(source.now[start : start + call.result]))
        return True

    def _ftruncate(self, call: Call) -> bool:
        _, inode, _ = self._file(call.arguments)
        if inode is None:
            return False
        inode.change(Resize(int(call.arguments.rpartition(", ")[2])))
        return True

    def _fsync(self, call: Call) -> bool:
        _, inode, path = self._file(call.arguments)
        if inode is not None:
            self.disk.sync_file(inode, self._names)
            return True
        name = self._inside(path)
        if name is None:
            return False
        self.disk.sync_directory(name, self._names)
        return True

    _fdatasync = _fsync

    def _refused(self, call: Call) -> bool:
        if any(self._file(word)[1] is not None for word in call.arguments.split(", ")):
            raise AssertionError(f"this player does not know {call.name}: {call.arguments[:200]}")
        return False

    _sendfile = _fallocate = _dup = _dup2 = _dup3 = _pwritev2 = _truncate = _symlink = _symlinkat = _refused
