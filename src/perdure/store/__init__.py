"""Adapters of the port `Store`: SQLite (the default), Postgres and memory, opened by URL; and of `Blobs`: a directory.

An adapter imports the core's records and ports, and nothing else of perdure; only it knows its database's language.
`open_store` imports the one that is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

from perdure.core.ground.trees import discard_tree
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.core.ground.ports import Blobs, Liveness, Store

_SUPPORTED: Final = (
    "`sqlite:///relative.db`, `sqlite:////absolute.db`, a plain path, `postgresql://user@host/database`, or `memory://`"
)
_POSTGRES: Final = ("postgresql", "postgres")
_MISTYPED: Final = re.compile(r"(?:(?P<scheme>postgresql|postgres|sqlite|memory)[:/]+)?(?P<rest>.*)", re.DOTALL)
_PASSWORD: Final = re.compile(r"\bpass(?:word|wd)?\s*=", re.IGNORECASE)
"""What stands in front of a password in a connection string of libpq, which is no URL."""
_SCHEME: Final = re.compile("[A-Za-z0-9+.-]*")
_BUCKETS: Final = ("s3", "gs", "az")


def open_store(
    url: str | os.PathLike[str], *, durability: Literal["power", "process"] = "power", create: bool = True
) -> tuple[Store, Liveness]:
    """Open the store of that URL, creating it if need be, and the liveness of the workers that use it.

    `sqlite:///` is followed by a path, relative or (with a fourth slash) absolute; a path alone means the same. The
    workers' locks lie beside the database, in `<path>-workers`. `postgresql://` and `postgres://` are as libpq reads
    them; they need the extra `perdure[postgres]`. `memory://` is a new store that ends with this process.

    Args:
        durability: what a SQLite store's commits survive.
        create: make a Postgres store that is not there, or bring an old one's schema up to date.
    """
    if is_postgres(url):
        if _is_ambiguous(os.fspath(url).partition("://")[2]):
            raise UsageError(
                f"{public_url(os.fspath(url))}: the user or password holds an `@`, `/`, `?` or `#`, or no host "
                "follows; write these characters as %40, %2F, %3F and %23"
            )
        if durability != "power":
            raise UsageError(
                "durability='process' is for SQLite: a Postgres server may crash and come back while workers live on"
            )
        try:
            from .postgres import PostgresStore
        except ImportError as error:
            if not (error.name or "psycopg").startswith("psycopg"):
                raise
            raise UsageError(
                "a Postgres store needs psycopg, which is not installed: pip install 'perdure[postgres]'"
            ) from error
        remote = PostgresStore(os.fspath(url), create=create)
        return remote, remote.liveness()
    path = store_path(url)
    if path is None:
        from .memory import MemoryLiveness, MemoryStore

        return MemoryStore(), MemoryLiveness()
    from .locks import FileLiveness
    from .sqlite import SQLiteStore

    store = SQLiteStore(path, durability)
    return store, FileLiveness(f"{store.path}-workers")


def open_blobs(url: str | os.PathLike[str], at: str | None = None) -> Blobs:
    """The blob store for the store of that URL; it is created by the first file that goes in.

    By default `blobs` beside a database in a directory `.perdure`, `<path>-blobs` beside any other. For `memory://` a
    temporary directory that ends with this process. For a Postgres store `.perdure/postgres-<hash>-blobs` in the
    current directory: workers on several machines share files only where they share that directory, or a bucket.

    Args:
        url: the store's.
        at: where blobs are to lie instead: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`
            (with the extra `perdure[s3]`, which is for all three), `file:///directory` or a path. What this machine
            needs of a bucket's content is kept where blobs lie by default.
    """
    from .blobs.directory import LocalBlobs

    if not at:
        return LocalBlobs(_blobs_folder(url))
    check_blobs_at(at)
    if not is_bucket(at):
        return LocalBlobs(at.removeprefix("file://"))
    with _needs_obstore():
        from .blobs.bucket import BucketBlobs
    return BucketBlobs(at, LocalBlobs(_blobs_folder(url)))


def check_blobs_at(at: str) -> None:
    """Raise `UsageError` where blobs cannot lie at that URL or path, as far as its words tell."""
    scheme, colon, rest = at.partition("://")
    if not colon:
        if at.partition(":")[0] in (*_BUCKETS, "file") and ":" in at:
            raise UsageError(f"{at}: two slashes are missing behind the colon")
        return
    if scheme == "file":
        if not rest.startswith("/"):
            raise UsageError(f"{at}: a third slash is missing before the path")
    elif scheme not in _BUCKETS:
        raise UsageError(
            f"{scheme}://...: blobs do not lie there; supported are `s3://bucket/prefix`, `gs://bucket/prefix`, "
            "`az://container/prefix`, `file:///directory`, or a path"
        )
    elif not rest.partition("/")[0]:
        raise UsageError(f"{at} names no bucket: it is written as {scheme}://bucket/prefix")


def remote_objects() -> ModuleType:
    """The module for objects at URLs of the user's."""
    with _needs_obstore():
        from .blobs import remote
    return remote


@contextmanager
def _needs_obstore() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        if not (error.name or "obstore").startswith("obstore"):
            raise
        raise UsageError(
            "what lies in a bucket or at a URL needs obstore, which is not installed: pip install 'perdure[s3]'"
        ) from error


def is_bucket(at: str) -> bool:
    """Whether blobs that lie there lie in a bucket."""
    return at.partition("://")[0] in _BUCKETS and "://" in at


def open_bucket(url: str, below: str = "") -> Any:
    """The objects in a bucket, or in the part of it that lies below; see `containers.kubernetes.tree.Objects`."""
    with _needs_obstore():
        from .blobs.client import Bucket
    return Bucket(f"{url.rstrip('/')}/{below}".rstrip("/"))


def _blobs_folder(url: str | os.PathLike[str]) -> str:
    if is_postgres(url):
        return f"{files_base(url)}-blobs"
    path = store_path(url)
    if path is None:
        return _temporary()
    path = os.path.realpath(path)  # as the database does: what lies beside it lies beside the real file
    folder = os.path.dirname(path)
    return os.path.join(folder, "blobs") if os.path.basename(folder) == ".perdure" else f"{path}-blobs"


def is_postgres(url: str | os.PathLike[str]) -> bool:
    """Whether a store's URL names a Postgres database."""
    return os.fspath(url).partition("://")[0] in _POSTGRES and "://" in os.fspath(url)


def public_url(url: str) -> str:
    """A store's URL as it may be shown: without a password."""
    if not is_postgres(url):
        return _without_credentials(url)
    from urllib.parse import urlencode

    scheme, _, rest = url.partition("://")
    if _is_ambiguous(rest):
        return f"{scheme}://***"
    rest, _, query = rest.partition("#")[0].partition("?")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    shown = f"{scheme}://{user.partition(':')[0]}{at}{host}{slash}{path}"
    kept = {key: value for key, value in _query(query).items() if key in ("host", "port", "schema", "dbname", "user")}
    return shown + (f"?{urlencode(kept, safe='/')}" if kept else "")


def _is_ambiguous(rest: str) -> bool:
    """Whether the end of a password cannot be known: it holds an unescaped `@`, `/`, `?` or `#`, or no host follows."""
    place, _, path = rest.partition("/")
    user, at, hosts = place.rpartition("@")
    if not at:
        hosts = hosts.partition("#")[0].partition("?")[0]
    # A port that is no number belongs to a password.
    ports = [host.rpartition(":")[2] for host in hosts.split(",") if ":" in host and not host.endswith("]")]
    path, _, query = path.partition("?")
    named = [path, *(setting.partition("=")[0] for setting in query.split("&"))]
    return (
        "@" in "".join(named)
        or not set("@?#").isdisjoint(user)
        or not all(not port or port.isdigit() for port in ports)
    )


def _without_credentials(url: str) -> str:
    """A store's URL or path, without the words in front of an `@` that may be a mistyped user and password."""
    begin = _PASSWORD.search(url)
    if begin is not None:
        return f"{_without_credentials(url[: begin.start()])}{begin[0]}***"
    before, at, after = url.rpartition("@")
    found = _MISTYPED.match(before if at else url)
    assert found is not None
    is_path = not found["scheme"] or url.startswith("sqlite:///")
    if not at or (is_path and ":" not in before.removeprefix("sqlite:///")):
        return url if is_path else _without_query(url)  # a path may hold an @
    return _without_query(f"{found['scheme']}:***@{after}" if found["scheme"] else f"***@{after}")


def _without_query(url: str) -> str:
    """A mistyped URL without its parameters, of which each may be a password."""
    before, mark, query = url.partition("?")
    return f"{before}?***" if mark and "=" in query else url


def files_base(url: str | os.PathLike[str]) -> str | None:
    """What the names of the files that belong to a store begin with: its own path, or for Postgres a name in `.perdure`
    of the current directory; `None` for `memory://`."""
    text = os.fspath(url)
    if not is_postgres(text):
        path = store_path(text)
        return None if path is None else os.path.realpath(path)
    from hashlib import blake2b

    rest, _, query = text.partition("://")[2].partition("#")[0].partition("?")
    place, _, path = rest.partition("/")
    more = _query(query)
    host, _, port = place.rpartition("@")[2].partition(":")
    parts = (host or more.get("host", ""), port or more.get("port", ""), path or more.get("dbname", ""))
    name = blake2b("\0".join((*parts, more.get("schema", ""))).encode(), digest_size=6).hexdigest()
    return os.path.abspath(os.path.join(".perdure", f"postgres-{name}"))


def _query(text: str) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl(text))


def store_path(url: str | os.PathLike[str]) -> str | None:
    """The path of the SQLite database that a store's URL names; `None` for `memory://`."""
    text = os.fspath(url)
    scheme, colon, rest = text.partition("://")
    if colon and not _SCHEME.fullmatch(scheme):
        raise UsageError(f"{public_url(text)}: `://` is missing or misspelt; supported are {_SUPPORTED}")
    if not colon:
        path = text
        known = text.partition(":")[0] in (*_POSTGRES, "sqlite", "memory") and ":" in text
        if known or _without_credentials(text) != text:
            raise UsageError(f"{public_url(text)}: `://` is missing or misspelt; supported are {_SUPPORTED}")
    elif scheme == "sqlite":
        if not rest.startswith("/"):
            raise UsageError(
                f"{public_url(text)}: a third slash is missing before the path; supported are {_SUPPORTED}"
            )
        path = rest[1:]
    elif scheme == "memory":
        if rest:
            raise UsageError(f"{public_url(text)}: `memory://` takes no name; each one is a store of its own")
        return None
    else:
        raise UsageError(f"{scheme}://...: no store is called {scheme!r}; supported are {_SUPPORTED}")
    if not path or path.startswith(":memory:"):
        raise UsageError(
            f"{public_url(text)!r} names no file, and nothing would survive: name one, or say `memory://` if that is "
            "meant"
        )
    return path


@cache
def _temporary() -> str:
    import atexit
    import tempfile

    place = tempfile.mkdtemp(prefix="perdure-blobs-")
    owner = os.getpid()

    @atexit.register
    def remove() -> None:
        if os.getpid() == owner:  # a forked child leaves it to its parent
            discard_tree(place)

    return place
