"""The directories below which this process reads `file://` URLs (P11).

A URL in a recorded value is data: a stranger who can write to the store, or hand in an input, could name any file of
the user that drives the run. So such a file is read only below the store's project, below a directory in
`PERDURE_FILES`, below the directory of blobs, and beside a file that this process's own code or command line has named.
The directories of named files are added to `PERDURE_FILES`, so that child processes have them, too.
"""

from __future__ import annotations

import os
import threading

from ... import runtime
from ...core.body.scope import SCOPE, TraceScope
from ...errors import UsageError

SCHEME = "file://"
VARIABLE = "PERDURE_FILES"
"""Directories, separated as those in PATH are."""
_lock = threading.Lock()


def name_place(url: str) -> None:
    """The process's own code or command line names a URL: files beside and below may be read."""
    if not url.startswith(SCHEME):
        return
    path = os.path.realpath(url.removeprefix(SCHEME))
    folder = path if os.path.isdir(path) or os.path.dirname(path) == os.sep else os.path.dirname(path)
    with _lock:
        if not _is_given(folder):
            os.environ[VARIABLE] = os.pathsep.join(filter(None, (os.environ.get(VARIABLE), folder)))


def refuse_foreign_place(url: str) -> None:
    """Refuse to read a `file://` URL that lies below no given directory. A run stops and can be continued.

    Raises:
        UsageError: outside of any run.
        RunStopped: in the body of a run, which stays INTERRUPTED: the fault lies with this process, not with the step.
    """
    if not url.startswith(SCHEME) or _is_given(url.removeprefix(SCHEME)):
        return
    folder = os.path.dirname(os.path.realpath(url.removeprefix(SCHEME)))
    error = UsageError(
        f"{url} is named by a recorded value, and lies below no directory that this process was given. If you trust "
        f"the value, set {VARIABLE}={folder} and continue"
    )
    scope = SCOPE.get()
    body = scope.body if isinstance(scope, TraceScope) else scope
    if body is None:
        raise error
    body.driver.stop(error)
    raise body.driver.stopped_error()


def _is_given(path: str) -> bool:
    real = os.path.realpath(path)
    return any(real == top or real.startswith(os.path.join(top, "")) for top in map(os.path.realpath, _given()))


def _given() -> list[str]:
    blobs = runtime.blobs_at().removeprefix(SCHEME)
    named = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [runtime.project_root(), *filter(None, named), *([blobs] if blobs and "://" not in blobs else [])]
