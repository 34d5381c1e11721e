"""`File`, `Dir` and `DataFrame`: data too large for a journal, as values that go through a journal.

`from_local` copies a file or a directory into the blob store beside the journal, and returns a small reference: the
hash of the content. The reference is a value like any other: an argument, a result, a field, an item of a list. The
journal holds only the reference. The content is on disk before the reference can be recorded, and stays there when the
original is changed or removed.

A `Dir` is stored as a manifest: a blob that lists names and the hashes of their contents. The hash of the manifest is
the hash of the directory.

A reference may also name an object at a URL of the user's, where the object stays: `from_existing_remote`, and
`from_local` with a `remote_destination`. The reference pins the object by its ETag. Both calls look at or change the
outside world, so both are durable: within a run they happen once, and replay returns the recorded reference.

A data frame of pandas, polars or pyarrow is a value too, stored as a Parquet blob. `DataFrame` is the reference to such
a blob, and loads the data only when asked.
"""

from __future__ import annotations

from .api.files.file import File
from .api.files.folder import Dir
from .api.files.frame import DataFrame

__all__ = ["DataFrame", "Dir", "File"]
