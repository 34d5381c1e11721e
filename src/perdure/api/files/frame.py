"""`DataFrame`: the reference to a data frame whose content is a Parquet blob; the data frames of pandas and others.

A data frame of pandas, polars or pyarrow is a value like any other. The data frame is written as Parquet into the blob
store, and the journal holds the reference.

- F1 the identity of a data frame is a digest of the uncompressed Arrow data and of the schema, without the versions of
  the libraries. So an upgrade of a library between a crash and the resumption changes no identity, though the upgrade
  may change the bytes of the Parquet file.
- F2 the content is in the blob store before the reference can be recorded.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, NamedTuple, cast, final

from ... import runtime
from ...core.ground.values import Frames, add_frames
from ...errors import UsageError
from .._dual import dual, dual_method
from .file import File
from .reference import ContentReference, StrPath, path_text

_NAME: Final = "frame.parquet"


@final
class DataFrame(ContentReference):
    """A reference to a data frame in the blob store, as Parquet. Nothing is loaded before `load`. Never changes."""

    __slots__ = ("columns", "content", "kind", "rows")

    content: bytes
    """A digest of the data, the same for every way to write the data."""

    kind: str
    """The class of the original: `"pandas.DataFrame"`, `"polars.DataFrame"`, `"polars.LazyFrame"`, `"pyarrow.Table"`;
    empty for a Parquet file."""

    rows: int
    """The number of rows."""

    columns: int
    """The number of columns."""

    def __init__(self, *, hash: str, size: int, content: bytes, kind: str, rows: int, columns: int) -> None:
        super().__init__(name=_NAME, hash=hash, size=size)
        if kind and kind not in _KINDS:
            raise UsageError(f"{kind!r} is no kind of data frame: use DataFrame.from_local(frame)")
        if not isinstance(content, bytes) or len(content) != 32:
            raise UsageError("the digest of a data frame has 32 bytes: use DataFrame.from_local(frame)")
        fields = {"content": content, "kind": kind, "rows": rows, "columns": columns}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _identity(self) -> tuple[str, ...]:
        return self.hash, self.kind

    def _fields(self) -> dict[str, Any]:
        own = {"content": self.content, "kind": self.kind, "rows": self.rows, "columns": self.columns}
        return {"hash": self.hash, "size": self.size, **own}

    def __repr__(self) -> str:
        what = f"{self.rows:,} rows, {self.columns:,} columns"
        return f"DataFrame({self.kind or 'Parquet'}, {what}, hash='{self.hash[:12]}…')"

    @staticmethod
    def _from_local(frame: Any) -> DataFrame:
        """Store a data frame, or a Parquet file. On return the copy is on disk.

        Args:
            frame: a data frame of pandas, polars or pyarrow; or the path of a Parquet file.

        Raises:
            UsageError: the data frame cannot be written as Parquet, or the file is none.
            StoreError: the blob store cannot be written.
        """
        kind = _kind_of(type(frame))
        if kind is None:
            return _of_file(frame)
        try:
            return _put(frame)
        except ValueError as error:
            raise UsageError(f"the {kind.name} cannot be stored: {error}") from None

    _from_local.__name__, _from_local.__qualname__ = "from_local", "DataFrame.from_local"
    from_local = dual(_from_local)

    @property
    def file(self) -> File:
        """The Parquet file."""
        return File(name=self.name, hash=self.hash, size=self.size)

    @property
    def path(self) -> str:
        """The path of the Parquet file: local and read-only, kept by the blob store. Nothing is copied."""
        return self.file.path

    @dual_method
    def load(self, cls: type | None = None) -> Any:
        """The data frame.

        Args:
            cls: the wanted class: `pandas.DataFrame`, `polars.DataFrame`, `polars.LazyFrame` or `pyarrow.Table`. By
                default the class of the original. A `LazyFrame` reads the file when it is collected.

        Raises:
            UsageError: another class, or the library is not installed.
            StoreError: the content is missing or damaged.
        """
        return _get(self, cls)


DataFrame.__module__ = "perdure.io"  # the public name, which messages show


# -- the libraries ---------------------------------------------------------------------------------------------------


class _Written(NamedTuple):
    """A data frame as Parquet."""

    data: bytes
    content: bytes
    rows: int
    columns: int


class _Kind(NamedTuple):
    """A class of data frames."""

    name: str
    write: Callable[[Any], _Written]
    content: Callable[[Any], bytes]
    read: Callable[[str], object]


class _Digest(io.RawIOBase):
    """A stream that keeps only the digest of what is written."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.hash = hashlib.sha256(kind.encode())

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return memoryview(data).nbytes


def _library(name: str, why: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UsageError(f"{why} needs the package {package}: pip install {package}") from None


def _arrow(why: str) -> ModuleType:
    return cast("ModuleType", _library("pyarrow", why))


def _arrow_content(kind: str, table: Any) -> bytes:
    """The digest of a pyarrow Table (F1)."""
    pa = _arrow(f"a {kind}")
    digest = _Digest(kind)
    plain = table.replace_schema_metadata(_without_versions(table.schema.metadata)).combine_chunks()
    with pa.ipc.new_stream(pa.PythonFile(digest, mode="w"), plain.schema) as writer:
        writer.write_table(plain)
    return digest.hash.digest()


def _without_versions(metadata: dict[bytes, bytes] | None) -> dict[bytes, bytes]:
    found = dict(sorted((metadata or {}).items()))
    if b"pandas" in found:
        facts = json.loads(found[b"pandas"])
        facts.pop("creator", None)
        facts.pop("pandas_version", None)
        found[b"pandas"] = json.dumps(facts, sort_keys=True).encode()
    return found


def _arrow_parquet(table: Any) -> bytes:
    pa, pq = _arrow("Parquet"), _library("pyarrow.parquet", "Parquet")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return cast("bytes", sink.getvalue().to_pybytes())


def _pandas_table(frame: Any) -> Any:
    """A pandas DataFrame as a pyarrow Table, `attrs` included."""
    if len({type(name) for name in frame.columns}) > 1:
        raise ValueError("the names of its columns are of several types: make all of them text")
    table = _arrow("a pandas.DataFrame").Table.from_pandas(frame)
    if frame.attrs:
        attrs = json.dumps(frame.attrs, sort_keys=True).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"PANDAS_ATTRS": attrs})
    return table


def _write_pandas(frame: Any) -> _Written:
    table = _pandas_table(frame)
    return _Written(_arrow_parquet(table), _arrow_content("pandas", table), *frame.shape)


def _read_pandas(path: str) -> object:
    _arrow("a pandas.DataFrame")
    return _library("pandas", "a pandas.DataFrame").read_parquet(path, engine="pyarrow")


def _polars_content(frame: Any) -> bytes:
    pl = _library("polars", "a polars.DataFrame")
    digest = _Digest("polars")
    frame.rechunk().write_ipc_stream(digest, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
    return digest.hash.digest()


def _write_polars(frame: Any) -> _Written:
    sink = io.BytesIO()
    frame.write_parquet(sink)
    return _Written(sink.getvalue(), _polars_content(frame), *frame.shape)


def _read_polars(path: str) -> object:
    return _library("polars", "a polars.DataFrame").read_parquet(path)


def _scan_polars(path: str) -> object:
    return _library("polars", "a polars.LazyFrame").scan_parquet(path)


def _write_arrow(table: Any) -> _Written:
    return _Written(_arrow_parquet(table), _arrow_content("pyarrow", table), *table.shape)


def _read_arrow(path: str) -> object:
    return _library("pyarrow.parquet", "a pyarrow.Table").read_table(path)


_KINDS: Final = {
    kind.name: kind
    for kind in (
        _Kind(
            "pandas.DataFrame",
            _write_pandas,
            lambda frame: _arrow_content("pandas", _pandas_table(frame)),
            _read_pandas,
        ),
        _Kind("polars.DataFrame", _write_polars, _polars_content, _read_polars),
        _Kind(
            "polars.LazyFrame",
            lambda frame: _write_polars(frame.collect()),
            lambda frame: _polars_content(frame.collect()),
            _scan_polars,
        ),
        _Kind("pyarrow.Table", _write_arrow, lambda table: _arrow_content("pyarrow", table), _read_arrow),
    )
}


def _kind_of(cls: type) -> _Kind | None:
    """The kind of a class. The libraries are not imported: the program has imported the library of a value."""
    library = cls.__module__.partition(".")[0]
    kind = _KINDS.get(f"{library}.{cls.__name__}")
    return kind if kind and getattr(sys.modules.get(library), cls.__name__, None) is cls else None


def _put(frame: Any) -> DataFrame:
    kind = _kind_of(type(frame))
    assert kind is not None
    data, content, rows, columns = _refusals(kind.write, frame)
    hash = runtime.blobs().put_bytes(data)
    return DataFrame(hash=hash, size=len(data), content=content, kind=kind.name, rows=rows, columns=columns)


def _content(frame: Any) -> bytes:
    kind = _kind_of(type(frame))
    assert kind is not None
    digest: bytes = _refusals(kind.content, frame)
    return digest


def _refusals(call: Callable[[Any], Any], frame: Any) -> Any:
    """`call(frame)`; what the libraries refuse, under one type of error."""
    try:
        return call(frame)
    except UsageError:
        raise
    except Exception as error:  # each library has a tree of errors of its own
        text = " ".join(str(part) for part in error.args) or type(error).__name__
        raise ValueError(f"Parquet cannot hold it: {text}") from error


def _get(reference: DataFrame, cls: type | None) -> object:
    if cls is DataFrame:
        return reference
    kind = _KINDS.get(reference.kind) if cls is None else _kind_of(cls)
    if kind is None:
        known = ", ".join(_KINDS)
        asked = "no class is given" if cls is None else f"{cls.__module__}.{cls.__qualname__} is not known"
        raise UsageError(f"a data frame can be loaded as one of {known}, but {asked}")
    return kind.read(reference.path)


def _of_file(path: StrPath) -> DataFrame:
    text = path_text(path)
    file = File.from_local(text)
    pq = _library("pyarrow.parquet", "a Parquet file")
    try:
        facts = pq.read_metadata(file.path)
    except Exception as error:  # pyarrow has a tree of errors of its own
        raise UsageError(f"{text} is no Parquet file: {error}") from None
    return DataFrame(
        hash=file.hash, size=file.size, content=bytes.fromhex(file.hash), kind="",
        rows=facts.num_rows, columns=facts.num_columns,
    )  # fmt: skip


def is_frame(cls: type) -> bool:
    """Whether it is a class of data frames."""
    return _kind_of(cls) is not None


_wrappers: dict[type, Callable[[Any], DataFrame]] = {}


def add_wrapper(cls: type, unwrap: Callable[[Any], DataFrame]) -> None:
    """Let instances of a class stand for data frames. `unwrap` gives the reference."""
    _wrappers[cls] = unwrap


def _unwrapped(value: Any) -> Any:
    unwrap = _wrappers.get(type(value))
    return value if unwrap is None else unwrap(value)


add_frames(Frames(DataFrame, is_frame, _put, _content, _get, _unwrapped))
