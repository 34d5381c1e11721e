"""URLs of stores and engines as messages show them: no part of a password, however the URL is mistyped.

The kind: a separator of URLs inside a password, or a missing part behind the password, moves the place where a parser
believes that the password ends. Where the end cannot be known, nothing of the URL but the scheme is shown.
"""

from __future__ import annotations

import pytest

from perdure.containers.redaction import bare_url
from perdure.errors import UsageError
from perdure.store import open_store, public_url

PASSWORDS = [
    "s3cr?etpw", "s3c@ret", "s3c/ret", "s3c#ret", "s3c:ret", "s3c%40et", "sec ret9", "s3c\\ret", "s3c[ret", "s3c]ret",
    "s3c;ret", "s3c&ret", "s3c=ret", "s3c?re@t@h", "s3c/r?e@t@h", "s3cret:@:x", "?s3c", "#s3c", "s3c?a=b@c",
]  # fmt: skip
STORES = [
    "postgresql://u:{}@h/db", "postgres://u:{}@h/db?sslmode=x", "postgresql://u:{}@h1:1,h2:2/db", "postgresql:u:{}@h",
    "postgresql:/u:{}@h/db", "sqlite://u:{}@h", "u:{}@h/db", "postgresql//u:{}@h/db", "postgresql://h/db?password={}",
    "postgresql://u:{}", "postgresql://u:{}/db", "host=h password={} user=u", "HOST=h PASSWORD = '{}'",
    "postgrsql://u:{}@h/db", "POSTGRESQL://u:{}@h", "postgresql+psycopg://u:{}@h/db", "memory://{}@x",
]  # fmt: skip
ENGINES = [
    "tcp://u:{}@h:1",
    "https://u:{}@h",
    "http:u:{}@h",
    "tcp://{}@h",
    "tcp://u:{}",
    "kubernetes://u:{}@n?copilot=i",
]
SAFE = {("postgresql://u:{}", "s3c@ret"), ("postgresql://u:{}/db", "s3c@ret"), ("tcp://u:{}", "s3c@ret")}
"""The rest of these is a host as any other."""


def parts(password: str) -> list[str]:
    return [password[at : at + 3] for at in range(len(password) - 2)]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_store_s_url_shows_no_part_of_a_password(password: str) -> None:
    for form in STORES:
        if (form, password) in SAFE:
            continue
        url = form.format(password)
        assert not [part for part in parts(password) if part in public_url(url)], url


@pytest.mark.parametrize("password", PASSWORDS)
def test_an_engine_s_url_shows_no_part_of_a_password(password: str) -> None:
    for form in ENGINES:
        if (form, password) in SAFE:
            continue
        url = form.format(password)
        assert not [part for part in parts(password) if part in bare_url(url)], url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cr?et@h/db", "postgresql://u:s3cr#et@h/db", "postgresql://u:s3cr@et@h/db", "postgresql://u:s3cr",
        "host=h password=s3cr", "postgresql:u:s3cr@h", "sqlite://u:s3cr@h",
    ],
)  # fmt: skip
def test_a_store_at_such_a_url_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(UsageError, match=r"%40|supported are") as caught:
        open_store(url)
    assert "s3c" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/db", "postgresql://u@h:5432/db", "postgresql://u@h1:1,h2:2/db", "postgresql://[::1]:5432/db",
        "postgresql:///db", "postgresql://u@/db?host=/tmp/s", "postgresql://h/db?user=u@server", "x.db", "a@b.db",
        "sqlite:///dir/a@b.db", "memory://",
    ],
)  # fmt: skip
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert public_url(url).replace("%40", "@") == url


@pytest.mark.parametrize("url", ["tcp://h:2375", "http://[::1]:2375", "unix:///run/a@b:c.sock", "kubernetes://flows"])
def test_an_engine_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert bare_url(url) == url
