"""Text from the command line and the environment: a value or a typed error, without secrets, in bounded time.

Family: inputs of `perdure run` under any declared type, as text and as JSON; store URLs, typed in any way.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.budget import bounded, examples, kept
from tests.fuzz.test_values import REFUSED, TYPES

from perdure import runtime
from perdure.api.convert import Unfit, from_json, from_text, is_simple, label
from perdure.core.ground.trees import remove_tree
from perdure.core.ground.values import codec_for
from perdure.errors import PerdureError, UsageError
from perdure.store import files_base, is_postgres, open_blobs, public_url, store_path

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.integers(10**30, 10**40),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["x", "tags", "inner", "at", "names", "left", "a", "b", "number", "text", "1", ""]), inner,
            max_size=4,
        ),
    ),
    max_leaves=10,
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("0123456789.+-eExXpP_infaNTZ:,dhmsµ \n{}[]\"'truefalsnl/\\"), max_size=120),
    JSON.map(json.dumps),
    st.builds(lambda part, count, end: part * count + end, st.text(min_size=1, max_size=4), st.integers(1, 20_000),
              st.text(max_size=3)),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A directory without files, so that no text names one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        runtime.init("sqlite:///perdure.db")
        yield
        runtime.init()


@given(type=st.sampled_from(TYPES), text=TEXTS)
@examples(400)
def test_any_text_of_an_input_is_a_value_of_the_type_or_a_refusal(type: Any, text: str) -> None:
    """The value fits the declared type: it can be recorded."""
    if "://" in text:
        return  # a reference to a file elsewhere
    label(type), is_simple(type)
    with bounded():
        try:
            value = from_text(text, type)
        except (Unfit, UsageError) as error:
            refusal = str(error)
        else:
            refusal = ""
            recorded(type, value)
    assert len(refusal) < 5000


@given(type=st.sampled_from(TYPES), data=JSON)
@examples(400)
def test_any_json_of_an_input_is_a_value_of_the_type_or_a_refusal(type: Any, data: Any) -> None:
    with bounded():
        try:
            value = from_json(data, type)
        except (Unfit, UsageError) as error:
            refusal = str(error)
        else:
            refusal = ""
            recorded(type, value)
    assert len(refusal) < 5000


def recorded(type: Any, value: Any) -> None:
    try:
        codec_for(type, "input", {}).encode(value)
    except REFUSED as error:
        assert type is Any or "bytes when encoded" in str(error), error  # noqa: PT017 - one of several outcomes


SECRET = "sesame0pen"
PIECES = st.sampled_from(
    ["postgresql", "postgres", "sqlite", "memory", "s3", "://", ":/", ":", "/", "//", "@", "?", "#", "&", "=", "user",
     "host", "db", "password", "sslpassword", "schema", "[::1]", "%40", "%", " ", "..", "\n", "\x1b"]
)  # fmt: skip
URLS = st.lists(PIECES, max_size=8).map("".join)
LOGINS = st.builds(
    lambda scheme, colon, user, escaped, host, more: f"{scheme}{colon}{user}:{escaped}@{host}{more}",
    st.sampled_from(["postgresql", "postgres", "sqlite", "memory"]),
    st.sampled_from(["://", ":/", ":", ":///", "//"]),
    st.sampled_from(["user", "", "u%40x"]),
    st.sampled_from(
        [SECRET, quote(SECRET + "@/:?#", safe=""), f"{SECRET}@x", f"x@{SECRET}", f"{SECRET}/y", f"{SECRET}:z"]
    ),
    st.sampled_from(["host", "host:5432", "[::1]:1", "", "a,b"]),
    URLS | st.sampled_from(["/db", "?host=x", f"/db?password={SECRET}", f"?sslpassword={SECRET}&schema=s"]),
)  # fmt: skip


QUERIES = st.builds(
    lambda scheme, colon, key: f"{scheme}{colon}host/db?{key}={SECRET}",
    st.sampled_from(["postgresql", "postgres"]),
    st.sampled_from(["://", ":/", ":", "//"]),
    st.sampled_from(["password", "sslpassword", "x"]),
)


@given(url=LOGINS | QUERIES)
@examples(400)
def test_no_text_about_a_store_shows_its_password(url: str) -> None:
    shown = [public_url(url)]
    for ask in (store_path, files_base):
        if not is_postgres(url):
            try:
                ask(url)
            except UsageError as error:
                shown.append(str(error))
    assert not [text for text in shown if SECRET in text]


@kept("urls", "url", bytes.decode)
@given(url=URLS | st.text(max_size=30))
@examples(300)
def test_any_store_url_names_a_place_or_is_refused(url: str) -> None:
    with bounded():
        public_url(url)
        try:
            if is_postgres(url):
                assert files_base(url)
            else:
                path = store_path(url)
                assert path or url == "memory://"
        except UsageError as error:
            said = str(error)
        else:
            said = "a store"
    assert said


def test_a_path_may_hold_the_marks_of_a_url() -> None:
    assert store_path("data?x=1.db") == "data?x=1.db"
    assert store_path("sqlite:///a@b?x=1.db") == "a@b?x=1.db"


@given(at=URLS | st.text(max_size=30))
@examples(200)
def test_any_place_for_blobs_is_opened_or_refused(at: str) -> None:
    if at.startswith(("s3://", "gs://", "az://")):
        return  # opening one asks the cloud
    folder = tempfile.mkdtemp()
    try:
        open_blobs(str(Path(folder) / "perdure.db"), at)
    except PerdureError as error:
        said = str(error)
    else:
        said = "opened"
    finally:
        remove_tree(folder)
    assert said
