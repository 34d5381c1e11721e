"""The checks in front of every request, and the headers of every response.

A page on another site can make a browser send requests here. So a request needs a Host of this server, because a name
of the attacker may lead to this address (DNS rebinding). A request that changes something needs the Origin of this
server and the session's CSRF token. The Content-Security-Policy forbids inline script and style, so that a value that
slipped through as markup could run nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With `no-referrer` some browsers send `Origin: null` with a form.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine alone."""
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Sessions:
    """Sessions of browsers. A session is a random id with a signature under a key of this process, so sessions end with
    the process. Links are kept until used."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._links: set[str] = set()
        self._told: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), sha256).hexdigest()

    def issue(self) -> str:
        """The cookie of a new session."""
        id = secrets.token_urlsafe(24)
        return f"{id}.{self._sign(f'session {id}')}"

    def session_of(self, cookie: str) -> str | None:
        """The id in a cookie; `None` for a cookie that this process has not issued."""
        id, _, signature = cookie.partition(".")
        return id if hmac.compare_digest(signature.encode(), self._sign(f"session {id}").encode()) else None

    def csrf(self, session: str) -> str:
        """The token that every form of the session carries."""
        return self._sign(f"csrf {session}")

    def is_csrf(self, session: str, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.csrf(session).encode())

    def link_token(self) -> str:
        """A token that opens one session."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._links.add(token)
        return token

    def redeem(self, token: str) -> bool:
        """Use up a token. `False`: there is no such token, or the token has been used."""
        with self._lock:
            found = next((one for one in self._links if hmac.compare_digest(one.encode(), token.encode())), None)
            if found is not None:
                self._links.discard(found)
            return found is not None

    def tell(self, session: str, text: str) -> None:
        """A message for the next page of the session."""
        with self._lock:
            self._told.setdefault(session, []).append(text)
            while len(self._told) > 1000:
                del self._told[next(iter(self._told))]

    def told(self, session: str) -> list[str]:
        """The messages for this page, taken out."""
        with self._lock:
            return self._told.pop(session, [])


class Guard:
    """See the module text. An ASGI application around another."""

    def __init__(
        self,
        app: Any,
        sessions: Sessions,
        *,
        host: str,
        port: int,
        token: bool,
        read_only: bool,
        hosts: Iterable[str] = (),
    ) -> None:
        """
        Args:
            app: the application behind the checks.
            host: the address to listen at.
            port: part of the cookie's name, because browsers share cookies between the ports of a host.
            token: whether a session begins with a one-time link only.
            read_only: whether requests that change something are refused.
            hosts: further names under which browsers reach this server.
        """
        self._app = app
        self._sessions = sessions
        self._token = token
        self._read_only = read_only
        self._cookie = f"perdure_ui_{port}"
        self._hosts = LOOPBACK | {host.lower(), *(name.lower() for name in hosts)}
        self._anywhere = not is_loopback(host)
        if self._anywhere:
            self._hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookie: str | None = None
        refused = self._refusal(scope["method"], headers)
        if refused is None and not scope["path"].startswith("/static/"):
            session = self._session(headers)
            if session is None and not self._token:
                cookie = self._sessions.issue()
                session = self._sessions.session_of(cookie)
            if session is None and scope["path"] == "/login":
                cookie = self._login(scope)
                session = None if cookie is None else self._sessions.session_of(cookie)
            scope.setdefault("state", {})["session"] = session
            if session is None:
                refused = PlainTextResponse(
                    "This server needs a link with a token, which works once. The command `perdure ui` has printed "
                    "the link; a browser that is logged in can make another link (Storage, Another device).",
                    401,
                )

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found[name] = value
                found.setdefault("cache-control", "no-store")
                if cookie is not None:
                    found.append("set-cookie", f"{self._cookie}={cookie}; Path=/; HttpOnly; SameSite=Lax")
            await send(message)

        await (refused or self._app)(scope, receive, sending)

    def _refusal(self, method: str, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return PlainTextResponse(
                "The name in the address is not known as this server's. Name it with --allow-host where it is.", 421
            )
        if method in SAFE_METHODS:
            return None
        if method != "POST":
            return PlainTextResponse("Only GET, HEAD and POST are served.", 405)
        if self._read_only:
            return PlainTextResponse("This page was started with --read-only: nothing can be changed here.", 403)
        origin = headers.get("origin")
        same_site = headers.get("sec-fetch-site") == "same-origin"
        if (origin is None and not same_site) or (origin is not None and not _is_origin(origin, host)):
            return PlainTextResponse("The request comes from another site, so nothing was done.", 403)
        return None

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts:
            return True
        if not self._anywhere:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # an address cannot be rebound

    def _session(self, headers: Headers) -> str | None:
        cookies = cookie_parser(headers.get("cookie", ""))
        return self._sessions.session_of(cookies.get(self._cookie, ""))

    def _login(self, scope: Scope) -> str | None:
        query = bytes(scope.get("query_string", b"")).decode("latin-1")
        token = query.removeprefix("token=")
        # A program that looks at a link in advance (HEAD) does not use the link up.
        return self._sessions.issue() if scope["method"] == "GET" and self._sessions.redeem(token) else None


def _is_origin(origin: str, host: str) -> bool:
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and rest.lower() == host.lower()
