"""The content of files in a run's values: previews are bounded and never markup, downloads are neutral, and nothing
outside of the store is read."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from tests.ui.site import MARKUP, PNG, SECRET, Site, Visitor

NAMES = ("table", "tree", "note", "image", "vector", "page", "fake", "raw", "long", "none", "folder", "linked")
"""The files of the run `files-1` in order; the secret field is left out."""


def file_of(visitor: Visitor, name: str, more: str = "") -> Any:
    return visitor.json(f"/file.json?name=files-1&n={NAMES.index(name)}{more}")


def content_of(visitor: Visitor, name: str, more: str = "") -> httpx.Response:
    return visitor.http.get(f"/content?name=files-1&n={NAMES.index(name)}{more}")


def test_the_page_of_the_run_lists_the_files_of_the_chosen_action(visitor: Visitor) -> None:
    found = visitor.json("/run/files-1.json")["chosen"]["files"]
    assert [one["where"] for one in found] == list(NAMES)
    assert {one["where"]: one["kind"] for one in found}["folder"] == "directory"
    assert "/file?name=files-1&amp;at=0&amp;which=outcome&amp;n=0" in visitor.http.get("/run/files-1").text


def test_each_kind_of_content_has_its_preview(visitor: Visitor) -> None:
    """The family: CSV, JSON, text, a picture, markup of all kinds, bytes, a long text cut in a character, an empty
    file."""
    table = file_of(visitor, "table")["preview"]
    assert (table["head"], table["rows"][0]) == (["name", "note"], ["anna", MARKUP])
    assert (len(table["rows"]), table["cut"]) == (100, True)
    tree = file_of(visitor, "tree")["preview"]["tree"]
    assert [part["key"] for part in tree["parts"]] == ["password", "note", "list"]
    assert SECRET not in str(tree)
    assert file_of(visitor, "image")["preview"] == {"kind": "picture", "shown": True, "cut": False}
    for name in ("note", "vector", "page", "fake"):
        assert file_of(visitor, name)["preview"]["kind"] == "text", name
    assert file_of(visitor, "raw")["preview"] == {"kind": "binary", "cut": False}
    long = file_of(visitor, "long")["preview"]
    assert (set(long["text"]), long["cut"], len(long["text"])) == ({"é"}, True, 32_768)
    assert file_of(visitor, "none")["preview"] == {"kind": "text", "text": "", "cut": False}


def test_a_directory_is_listed_and_its_files_are_chosen_by_number(visitor: Visitor) -> None:
    found = file_of(visitor, "folder")
    assert [one["path"] for one in found["entries"]] == ["plain.txt", f"sub/{MARKUP.replace('/', '')}"]
    chosen = file_of(visitor, "folder", "&entry=1")
    assert chosen["preview"]["text"] == MARKUP
    assert content_of(visitor, "folder", "&entry=0").content == b"plain text"
    assert content_of(visitor, "folder").status_code == 400
    assert visitor.http.get(f"/file?name=files-1&n={NAMES.index('folder')}&entry=2").status_code == 400


def test_a_download_is_an_attachment_of_a_neutral_type_under_its_own_name(visitor: Visitor) -> None:
    for name in NAMES[:10]:
        answer = content_of(visitor, name)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert content_of(visitor, "long").text == "é" * 100_000
    assert quote(MARKUP.replace("/", ""), safe="") in content_of(visitor, "note").headers["content-disposition"]


def test_only_bytes_of_a_known_picture_are_sent_as_one(visitor: Visitor) -> None:
    """The family: a picture, SVG with a script, HTML that is called a picture, text, a directory."""
    good = visitor.http.get(f"/picture?name=files-1&n={NAMES.index('image')}")
    assert (good.headers["content-type"], good.content) == ("image/png", base64.b64decode(PNG))
    assert "default-src 'none'" in good.headers["content-security-policy"]
    for name in ("vector", "page", "fake", "none", "table", "folder", "linked"):
        assert visitor.http.get(f"/picture?name=files-1&n={NAMES.index(name)}").status_code == 400, name


def test_content_outside_of_the_store_is_named_and_never_read(visitor: Visitor) -> None:
    found = file_of(visitor, "linked")
    assert found["preview"] is None
    assert "outside of the store" in found["problem"]
    answer = content_of(visitor, "linked")
    assert answer.status_code == 400
    assert "content outside" not in answer.text + str(found)


@pytest.mark.parametrize(
    "query",
    [
        "name=files-1&n=99", "name=files-1&n=-1", "name=files-1&n=..%2F..%2Fetc%2Fpasswd", "name=files-1&at=9",
        "name=files-1&which=%2Fetc%2Fpasswd", "name=files-1&n=10&entry=..%2F..%2Ftable.csv", "name=order-1",
        "name=files-1&n=10&entry=99", "name=files-1&n=%C2%B2",
    ],
)  # fmt: skip
def test_an_address_names_nothing_but_recorded_references(visitor: Visitor, query: str) -> None:
    for page in ("file", "content", "picture"):
        assert visitor.http.get(f"/{page}?{query}").status_code == 400, page
    assert visitor.http.get("/content?name=nothing").status_code == 404


def test_a_file_in_a_secret_field_is_not_offered(visitor: Visitor) -> None:
    for n in range(len(NAMES)):
        assert "hidden.txt" not in visitor.http.get(f"/file?name=files-1&n={n}").text
    assert "hidden.txt" not in str(visitor.json("/run/files-1.json")["chosen"]["files"])


def test_content_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    """The family: a blob that is gone, one that was cut short, the manifest of a directory that is gone."""
    site = Site(tmp_path)
    try:
        site.seed()
        visitor = Visitor(site.ui())
        blobs = [path for path in (tmp_path / ".perdure").rglob("*") if path.is_file() and len(path.name) == 64]
        assert blobs
        for path in blobs:
            os.chmod(path.parent, 0o755)
            path.unlink()
        for name in ("table", "folder"):
            page = visitor.http.get(f"/file?name=files-1&n={NAMES.index(name)}")
            assert page.status_code == 200
            assert file_of(visitor, name)["problem"].count("\n") == 0
            assert "blob" in file_of(visitor, name)["problem"]
            assert content_of(visitor, name).status_code == 503
    finally:
        site.close()


def test_files_in_a_bucket_are_previewed_without_a_whole_transfer(tmp_path: Path) -> None:
    """The page runs on another machine than the run: its own directory of blobs is empty."""
    from tests.bucket import ENVIRONMENT, endpoint

    site = Site(tmp_path)
    try:
        url = f"{endpoint().bucket()}/flows"
        site.env |= {**ENVIRONMENT, **endpoint().environment(), "PERDURE_BLOBS": url}
        site.seed()
        for path in (tmp_path / ".perdure").rglob("*"):
            if path.is_file() and len(path.name) == 64:
                os.chmod(path.parent, 0o755)
                path.unlink()
        visitor = Visitor(site.ui())
        assert file_of(visitor, "long")["preview"]["cut"]
        assert not [path for path in (tmp_path / ".perdure").rglob("*") if path.is_file() and len(path.name) == 64]
        assert file_of(visitor, "folder", "&entry=1")["preview"]["text"] == MARKUP
        assert content_of(visitor, "raw").content == bytes(range(256))
    finally:
        site.close()
