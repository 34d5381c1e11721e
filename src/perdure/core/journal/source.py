"""Snapshots of a run's code, taken when an entry is written: the hashes of the modules under the code root (P6).

The hash of a module covers the compiled code, constants included, and not comments, formatting or line numbers.
Bytecode belongs to a Python minor version, and therefore so does the hash: another version counts as changed source.
Two snapshots differ if a module in both differs. A module in only one of the snapshots, imported lazily for example,
does not count.
"""

from __future__ import annotations

import os
import sys
import types
from functools import cache
from typing import Any, NamedTuple

from ..ground.digest import blake2b
from ..ground.model import Source
from ..ground.private import stranger_of

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@cache
def code_root(file: str) -> str:
    """The folder that a file's code belongs to: above the topmost package that the file is in.

    The climb ends below a directory of another user's, as modules there would be imported along with the file.
    """
    folder = os.path.dirname(os.path.abspath(file))
    while os.path.exists(os.path.join(folder, "__init__.py")):
        parent = os.path.dirname(folder)
        if parent == folder or stranger_of(parent) or stranger_of(os.path.join(folder, "__init__.py")):
            break
        folder = parent
    return folder


@cache
def logical_name(file: str) -> str:
    """The dotted module name of `file` under the code root, independent of the name at the start of the program."""
    path = os.path.abspath(file)
    stem = os.path.splitext(os.path.relpath(path, code_root(path)))[0]
    if os.path.basename(stem) == "__init__" and os.path.dirname(stem):
        stem = os.path.dirname(stem)
    return stem.replace(os.sep, ".")


class _Hashed(NamedTuple):
    module: Any
    hash: bytes
    """The hash of the file when the module was first looked at."""


class Sources:
    """Snapshots of a code root; a snapshot is kept until another module is imported."""

    def __init__(self, root: str | None) -> None:
        self._root = os.path.join(root, "") if root else None
        self._hashes: dict[str, _Hashed] = {}
        self._count = -1
        self._source: Source | None = None

    def snapshot(self) -> Source:
        """Today's code."""
        if self._source is not None and len(sys.modules) == self._count and self._root is not None:
            return self._source
        self._count = len(sys.modules)
        modules: dict[str, bytes] = {}
        for name, module in list(sys.modules.items()):
            if (found := self._module_hash(name, module)) is not None:
                logical, hash = found
                modules[logical] = hash
        digest = blake2b(PYTHON.encode(), digest_size=16)
        for logical, hash in sorted(modules.items()):
            digest.update(logical.encode("utf-8", "surrogatepass") + b"\0" + hash)
        self._source = Source(digest.digest(), PYTHON, modules)
        return self._source

    def _module_hash(self, name: str, module: Any) -> tuple[str, bytes] | None:
        try:
            file = getattr(module, "__file__", None)
        except Exception:  # a module with computed attributes is no module of the code root
            return None
        if not isinstance(file, str):
            # The `__main__` of a notebook has no file: hash the functions.
            if name == "__main__" and self._root is None:
                return "__main__", _hash_functions(module)
            return None
        if self._root is None or not file.startswith(self._root) or not file.endswith(".py"):
            return None
        if f"{os.sep}site-packages{os.sep}" in file[len(self._root) - 1 :]:
            return None
        logical = logical_name(file) if name == "__main__" else name
        # Once per loaded module: a file that was edited after the import is not the running code.
        known = self._hashes.get(file)
        if known is None or known.module is not module:
            try:
                known = _Hashed(module, hash_file(file))
            except (OSError, SyntaxError, ValueError):
                return None
            self._hashes[file] = known
        return logical, known.hash


def changed(then: Source, now: Source) -> bool:
    """Whether a module in both snapshots differs, or the Python version."""
    if then.digest == now.digest:
        return False
    if then.python != now.python:
        return True
    return any(now.modules.get(name, code) != code for name, code in then.modules.items())


def hash_file(file: str) -> bytes:
    """The hash of a source file's compiled code."""
    with open(file, "rb") as stream:
        text = stream.read()
    return hash_code(compile(text, file, "exec", dont_inherit=True))


def hash_code(code: types.CodeType) -> bytes:
    """16 bytes over instructions, names and constants of a code object, nested code included."""
    digest = blake2b(digest_size=16)
    _feed(digest, code)
    return digest.digest()


def hash_function(fn: Any) -> bytes:
    """16 bytes over a function's code and defaults."""
    digest = blake2b(digest_size=16)
    seen = fn
    while hasattr(seen, "__wrapped__"):
        seen = seen.__wrapped__
    code = getattr(seen, "__code__", None)
    if code is not None:
        _feed(digest, code)
    for default in getattr(seen, "__defaults__", None) or ():
        # Only defaults that look the same in every process; the `repr` of others holds an address.
        plain = isinstance(default, (str, bytes, int, float, type(None)))
        shown = repr(default) if plain else type(default).__qualname__
        digest.update(shown.encode("utf-8", "surrogatepass") + b"\0")
    return digest.digest()


def _hash_functions(module: Any) -> bytes:
    digest = blake2b(digest_size=16)
    for name in sorted(vars(module)):
        value = getattr(module, name)
        fn = getattr(value, "__wrapped__", value)
        if isinstance(fn, types.FunctionType) and fn.__module__ == "__main__":
            digest.update(name.encode() + b"\0" + hash_function(fn))
    return digest.digest()


def _feed(digest: Any, code: types.CodeType) -> None:
    digest.update(code.co_code)
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    shape = (names, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    digest.update(repr(shape).encode("utf-8", "surrogatepass"))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _feed(digest, constant)
        elif isinstance(constant, frozenset):
            # The order of a set differs between processes.
            digest.update(repr(sorted(map(repr, constant))).encode("utf-8", "surrogatepass"))
        else:
            digest.update(repr(constant).encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
