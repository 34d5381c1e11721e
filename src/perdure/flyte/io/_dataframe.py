"""`DataFrame`: a data frame of any library, with Flyte's methods."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self

from ...api.files.frame import add_wrapper, is_frame
from ...core.ground.values import Form, add_forms, know_form
from ...errors import UsageError
from ...io import DataFrame as PerdureFrame
from ._hashing_io import HashMethod
from ._value import Fields, local

PARQUET = "parquet"


class DataFrame(Fields):
    """A data frame of any library, or a place that holds one. Nothing is loaded before `all`."""

    _names = ("uri", "format", "hash")

    def __init__(self, *, uri: str | None = None, format: str | None = "", hash: str | None = None) -> None:
        self._uri = uri
        self._content: PerdureFrame | None = None
        self.val: Any = None
        self.format = format
        self.hash = hash
        self._class: type | None = None

    @property
    def uri(self) -> str | None:
        """The place of the Parquet file; `None` before the data frame is stored."""
        return self._content.path if self._uri is None and self._content is not None else self._uri

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataFrame) and repr(self) == repr(other) and self.val is other.val

    __hash__ = None  # type: ignore[assignment]

    # -- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def from_df(cls, val: Any = None, uri: str | None = None) -> Self:
        """A data frame in memory. It is stored when it leaves the task."""
        made = cls(uri=uri)
        made.val = val
        return made

    wrap_df = from_df
    create_from = from_df

    @classmethod
    async def from_local(
        cls,
        df: Any,
        columns: Any = None,
        remote_destination: str | None = None,
        hash_method: HashMethod | str | None = None,
    ) -> Self:
        """Store a data frame.

        Args:
            df: the data frame.
            columns: the columns to keep, as a mapping or a list of names; by default all.
            remote_destination: is absent.
            hash_method: a digest, or how to compute the digest; becomes `hash`.
        """
        return cls.from_local_sync(df, columns, remote_destination, hash_method)

    @classmethod
    def from_local_sync(
        cls,
        df: Any,
        columns: Any = None,
        remote_destination: str | None = None,
        hash_method: HashMethod | str | None = None,
    ) -> Self:
        """As `from_local`."""
        if remote_destination is not None:
            raise UsageError("remote_destination is absent in perdure: write the Parquet file there, and pass a File")
        made = cls.from_df(df if columns is None else df[list(columns)])
        if isinstance(hash_method, str):
            made.hash = hash_method
        elif hash_method is not None:
            hash_method.update(df)
            made.hash = hash_method.result()
        made._content = PerdureFrame.from_local(made.val)
        made.format = PARQUET
        return made

    @classmethod
    def from_existing_remote(cls, remote_path: str, format: str | None = None, **kwargs: Any) -> Self:
        """A Parquet file, or a directory of Parquet files, that exists at a path."""
        return cls(uri=remote_path, format=format)

    # -- the data --------------------------------------------------------------------------------------------------

    def open(self, dataframe_type: type) -> Self:
        """Choose the class that `all` gives."""
        self._class = dataframe_type
        return self

    async def all(self) -> Any:
        """The data, in the class of `open`."""
        return self.all_sync()

    def all_sync(self) -> Any:
        """As `all`."""
        wanted = self._class
        if wanted is None:
            raise UsageError("no class is chosen: use frame.open(pandas.DataFrame).all()")
        if self.val is not None and type(self.val) is wanted:
            return self.val
        return content_of(self).load(wanted)

    async def iter(self) -> AsyncIterator[Any]:
        """The data in pieces; here a single piece."""
        yield self.all_sync()

    @property
    def metadata(self) -> None:
        """Nothing: it describes the data in Flyte's own terms."""
        return None

    literal = metadata
    lazy_uploader = metadata

    @classmethod
    def columns(cls) -> dict[str, type]:
        """The declared columns: none."""
        return {}

    @classmethod
    def column_names(cls) -> list[str]:
        """The names of the declared columns: none."""
        return []


# -- across the boundary of a task -----------------------------------------------------------------------------------


@dataclass
class StoredFrame:
    """A DataFrame as the journal keeps it."""

    content: PerdureFrame | None
    uri: str | None
    format: str | None
    hash: str | None


def content_of(frame: DataFrame) -> PerdureFrame:
    """The content in the blob store, put there where need be."""
    if frame._content is None:
        if frame.val is not None:
            frame._content = PerdureFrame.from_local(frame.val)
        elif frame._uri is not None and (path := local(frame._uri)) is not None:
            frame._content = PerdureFrame.from_local(_whole(path) if os.path.isdir(path) else path)
        else:
            raise UsageError(
                f"the data frame at {frame._uri} cannot be read: download the Parquet file, and use its path"
            )
    return frame._content


def _whole(path: str) -> Any:
    """All Parquet files of a directory as one table."""
    import pyarrow.parquet as pq

    return pq.read_table(path)


def _put(value: Any) -> StoredFrame:
    if isinstance(value, PerdureFrame) or is_frame(type(value)):
        return StoredFrame(PerdureFrame.from_local(value) if is_frame(type(value)) else value, None, PARQUET, None)
    if value.val is None and value._content is None and not _is_there(value):
        return StoredFrame(None, value._uri, value.format, value.hash)
    return StoredFrame(content_of(value), None, PARQUET, value.hash)


def _is_there(frame: DataFrame) -> bool:
    path = None if frame._uri is None else local(frame._uri)
    return path is not None and os.path.exists(path)


def _get(stored: StoredFrame) -> DataFrame:
    made = DataFrame(uri=stored.uri, format=stored.format, hash=stored.hash)
    made._content = stored.content
    return made


def _identity(value: Any) -> object:
    stored = _put(value)
    return ["path", stored.uri] if stored.content is None else ["content", stored.content.content]


def _accepts(value: object) -> bool:
    return isinstance(value, (DataFrame, PerdureFrame)) or is_frame(type(value))


_FORM = Form(StoredFrame, _put, _get, _accepts, _identity, "flyte.io.DataFrame")
add_forms(lambda cls: _FORM if cls is DataFrame else None)
know_form(DataFrame)
add_wrapper(DataFrame, content_of)
