"""The archive for an image build: the context directory and the Dockerfile."""

from __future__ import annotations

import os
import tarfile
import tempfile
from typing import IO, Final

from perdure.errors import UsageError

DOCKERFILE: Final = ".perdure-dockerfile"
"""The Dockerfile's name in the archive. The Dockerfile may lie outside the context, and is always sent apart."""


def pack(dockerfile: str, context: str) -> IO[bytes]:
    """The archive, at the beginning, in a file that vanishes at close."""
    if not os.path.isfile(dockerfile):
        raise UsageError(f"There is no Dockerfile {dockerfile}.")
    if not os.path.isdir(context):
        raise UsageError(f"The build context {context} is no directory.")
    archive = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(context, arcname=".", filter=_sendable)
            tar.add(os.path.realpath(dockerfile), arcname=DOCKERFILE)
    except BaseException:
        archive.close()
        raise
    archive.seek(0)
    return archive


def _sendable(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Sockets cannot be in an archive (tarfile leaves sockets out), and devices and pipes have no place in an image."""
    return entry if entry.isfile() or entry.isdir() or entry.issym() or entry.islnk() else None
