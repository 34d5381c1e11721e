"""Requests that another site, another program or another machine can make a browser send: refused, with no effect."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest
from tests.ui.site import MARKUP, SECRET, Site, Visitor

PAGES = (
    "/runs", "/run/broken-1", "/run/order-1?at=1", f"/run/{quote(MARKUP, safe='')}", "/conditions",
    "/condition?run=ask-1&box=ship", "/condition?run=ask-2&box=decide", "/start", "/start?task=shop.order", "/workers",
    "/schedules", "/queues", "/failures", "/bulk?operation=cancel&name=*",
    *(f"/file?name=files-1&n={n}" for n in range(12)), "/file?name=files-1&n=10&entry=1", "/run/files-1",
    "/graph?name=order-1", f"/graph?name={quote(MARKUP)}",
    "/compare", "/compare?a=order-1", f"/compare?a=order-1&b={quote(MARKUP)}", "/compare?a=order-1&b=broken-1",
    f"/bulk?operation=abort&name={quote(MARKUP)}",
    "/storage", "/run/nothing", "/nothing", "/runs?status=odd", "/static/style.css", "/static/nothing",
)  # fmt: skip


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_a_request_under_a_foreign_name_is_refused_on_every_page(visitor: Visitor, host: str) -> None:
    """DNS rebinding: a name of the attacker leads to the loopback address. The family: names that are no names of this
    server, for reading, for files and for operations."""
    for page in ("/runs", "/runs.json", "/run/broken-1", "/static/style.css", "/live"):
        assert visitor.http.get(page, headers={"host": host}).status_code in (400, 421), page
    answer = visitor.post("abort", "nap-1", {"host": host, "origin": f"http://{host}"})
    assert answer.status_code in (400, 403, 421)
    assert visitor.status("nap-1") == "SLEEPING"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_the_names_of_this_machine_are_served(visitor: Visitor, name: str) -> None:
    port = visitor.url.rpartition(":")[2]
    assert visitor.http.get("/runs", headers={"host": f"{name}:{port}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "", "sec-fetch-site": "cross-site"},
        {"origin": "", "sec-fetch-site": "same-site"},
        {"origin": "http://localhost:1"},
        {"origin": "file://"},
    ],
    ids=str,
)
def test_a_form_of_another_site_has_no_effect(visitor: Visitor, headers: dict[str, str]) -> None:
    """A foreign site's form: refused even with a right CSRF token. The family: every origin but this server's own."""
    assert visitor.post("abort", "nap-1", headers).status_code == 403
    assert visitor.status("nap-1") == "SLEEPING"


def test_a_form_without_the_token_of_the_session_has_no_effect(visitor: Visitor, url: str) -> None:
    other = Visitor(url)
    for token in ("", "0" * 64, other.csrf(), "é"):
        assert visitor.post("abort", "nap-1", csrf=token).status_code == 403
    assert visitor.status("nap-1") == "SLEEPING"


def test_only_forms_by_post_change_anything(visitor: Visitor) -> None:
    act, headers = "/act/abort?name=nap-1", {"origin": visitor.url}
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert visitor.http.request(method, act, headers=headers).status_code in (403, 404, 405), method
    as_json = {**headers, "content-type": "application/json"}
    assert visitor.http.post(act, headers=as_json, content="{}").status_code == 415
    as_text = {**headers, "content-type": "text/plain"}
    assert visitor.http.post(act, headers=as_text, content=f"csrf={visitor.csrf()}").status_code == 415
    assert visitor.status("nap-1") == "SLEEPING"


def test_a_form_over_the_limit_is_refused(visitor: Visitor) -> None:
    answer = visitor.post("signal", "ask-1", box="ship", **{"in-value": "x" * (9 << 20)})
    assert answer.status_code == 413
    assert visitor.status("ask-1") == "WAITING"


@pytest.mark.parametrize("page", PAGES)
def test_every_response_carries_the_headers_that_protect_the_page(visitor: Visitor, page: str) -> None:
    headers = visitor.http.get(page).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


class _Tags(HTMLParser):
    """Collects tags that no template has: code and style inline, addresses that run code, other images."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.seen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen += 1
        given = dict(attrs)
        inline = any(name.startswith("on") or name == "style" for name in given)
        address = (given.get("href") or given.get("src") or given.get("action") or "/").strip()
        foreign = not address.startswith(("/", "#")) or address.startswith("//")
        code = tag in ("script", "img") and not address.startswith(("/static/", "/picture?"))
        if inline or foreign or code or tag in ("style", "iframe", "object", "base"):
            self.wrong.append(self.get_starttag_text() or tag)


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("/static")])
def test_no_page_takes_a_value_for_markup_and_none_has_inline_code(visitor: Visitor, page: str) -> None:
    """The family: names of runs, tags, inputs, errors, groups, prompts, descriptions, docstrings, addresses."""
    found = _Tags()
    found.feed(visitor.http.get(page).text)
    assert found.wrong == []
    assert found.seen > 20


@pytest.mark.parametrize(
    "page",
    [
        "/runs", "/runs.json", "/run/order-1", "/run/order-1.json", "/run/broken-1.json", "/run/order-1.json?at=1",
        "/value?name=order-1&at=0&which=inputs", "/value?name=order-1&at=0&which=outcome",
        "/value?name=broken-1&at=0&which=inputs",
    ],
)  # fmt: skip
def test_values_of_secret_fields_are_masked_wherever_a_value_is_shown(visitor: Visitor, page: str) -> None:
    answer = visitor.http.get(page)
    assert answer.status_code == 200
    assert SECRET not in answer.text


def test_a_further_field_is_masked_on_request(site: Site) -> None:
    found = Visitor(site.ui("--mask", "size", "--mask", "ITEM"))
    data = found.json("/run/order-1.json")["chosen"]
    assert data["inputs"]["value"]["item"] == data["outcome"]["value"]["size"] == "••••••"


def test_a_value_is_downloaded_as_a_file_of_a_neutral_type(visitor: Visitor) -> None:
    headers = visitor.http.get("/value?name=order-1&at=0&which=outcome").headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/..%2fapp.py"]
)
def test_no_file_outside_of_the_static_folder_is_served(visitor: Visitor, path: str) -> None:
    answer = httpx.Client().send(httpx.Request("GET", httpx.URL(f"{visitor.url}/static/{path}")))
    assert answer.status_code in (404, 421)
    assert "create_app" not in answer.text


def test_a_read_only_page_shows_everything_and_changes_nothing(site: Site, visitor: Visitor) -> None:
    found = Visitor(site.ui("--read-only"))
    csrf = visitor.csrf()
    for act, name in (("abort", "nap-1"), ("cancel", "nap-1"), ("start", "shop.order"), ("signal", "ask-1")):
        answer = found.http.post(
            f"/act/{act}?name={name}", headers={"origin": found.url}, data={"csrf": csrf, "box": "ship"}
        )
        assert answer.status_code == 403, act
    for page in (
        "/run/nap-1",
        "/run/broken-1",
        "/condition?run=ask-1&box=ship",
        "/start?task=shop.order",
        "/schedules",
    ):
        text = found.http.get(page).text
        assert 'method="post"' not in text, page
    assert visitor.status("nap-1") == "SLEEPING"


# -- the token -------------------------------------------------------------------------------------------------


def test_a_link_opens_one_session_once(site: Site) -> None:
    """With a token every page is closed before the link, and the link is used up by the first visit. The family: no
    cookie, a forged cookie, a cookie of another process, a second use of the link, a look without a visit."""
    link = site.ui("--token")
    base = link.partition("/login")[0]
    stranger = httpx.Client(base_url=base)
    for page in ("/runs", "/runs.json", "/run/order-1.json", "/live", "/storage", "/value?name=order-1&at=0"):
        assert stranger.get(page).status_code == 401, page
    name = f"perdure_ui_{base.rpartition(':')[2]}"
    for forged in ("", "x", "x.y", f"x.{'0' * 64}", "é".encode().hex()):
        assert stranger.get("/runs", headers={"cookie": f"{name}={forged}"}).status_code == 401
    assert stranger.get(f"/login?token={'0' * 43}").status_code == 401
    assert stranger.head(link).status_code == 401
    first = stranger.get(link)
    assert first.status_code == 303
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert stranger.get("/runs").status_code == 200
    assert httpx.get(link).status_code == 401


def test_a_browser_that_is_logged_in_makes_a_link_for_another(site: Site) -> None:
    link = site.ui("--token")
    base = link.partition("/login")[0]
    first = httpx.Client(base_url=base, follow_redirects=True)
    page = first.get(link.removeprefix(base))
    assert page.status_code == 200
    csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', first.get("/storage").text)
    assert csrf is not None
    told = first.post("/act/link?name=", headers={"origin": base}, data={"csrf": csrf[1]}).text
    second = re.search(r"http://\S+/login\?token=[\w-]+", told)
    assert second is not None
    assert httpx.Client(follow_redirects=True).get(second[0]).status_code == 200


def test_a_browser_of_another_machine_cannot_name_files_of_this_machine(site: Site, visitor: Visitor) -> None:
    """The family: an absolute path, a relative path, a file URL. On loopback without a token the path is taken."""
    far = Visitor.by_link(site.ui("--token"))
    for text in ("/etc/passwd", "shop.py", "file:///etc/passwd"):
        answer = far.post("start", "shop.size_of", **{"in-file": text})
        assert answer.status_code == 400
        assert "cannot be named from elsewhere" in answer.text
    assert visitor.post("start", "shop.size_of", **{"in-file": "shop.py"}).status_code == 303


def test_an_address_for_other_machines_always_needs_the_link(site: Site) -> None:
    link = site.ui("--host", "0.0.0.0")
    assert "/login?token=" in link
    port = link.partition("/login")[0].rpartition(":")[2]
    assert httpx.get(f"http://127.0.0.1:{port}/runs").status_code == 401
    assert httpx.get(f"http://127.0.0.1:{port}/runs", headers={"host": "evil.example"}).status_code == 421
