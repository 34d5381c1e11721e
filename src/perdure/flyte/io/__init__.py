"""Files, directories and data frames with Flyte's methods: asynchronous by default, with `_sync` forms.

A path on this machine is a plain path, as in Flyte's local mode. Whenever a value crosses the boundary of a task, the
content goes into perdure's blob store, and the other side gets a path of read-only content there. So a resumed run
reads the same content, even where the original was changed or removed.
"""

from __future__ import annotations

from ._dataframe import PARQUET, DataFrame
from ._dir import Dir, EmptyDir
from ._file import File
from ._hashing_io import HashFunction

__all__ = ["PARQUET", "DataFrame", "Dir", "EmptyDir", "File", "HashFunction"]
