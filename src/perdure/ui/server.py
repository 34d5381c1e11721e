"""The HTTP server of `perdure ui`: the address, the one-time link, and the end."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn

from ..errors import UsageError
from .app import Site, create_app
from .guard import is_loopback
from .pages import UiSettings

STOP_SECONDS = 2
"""How long requests under way may take after the server was told to end."""


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The command line has handlers of its own.
        yield


class WebServer:
    """The pages of the store in use, at an address."""

    def __init__(self, ui: UiSettings, host: str, port: int, hosts: tuple[str, ...] = ()) -> None:
        """
        Args:
            ui: what the pages show and do.
            host: the address to listen at. Another address than loopback needs `ui.token`.
            port: 0 for a free port.
            hosts: further names under which browsers reach this server.

        Raises:
            UsageError: the address cannot be used.
        """
        if not is_loopback(host) and not ui.token:
            raise UsageError(f"{host} can be reached from other machines, so browsers need a token")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"nothing can listen at {host}:{port}: {error.strerror}; choose another address with --host and --port"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self.site = Site(ui)
        app = create_app(self.site, host=host, port=self.port, hosts=hosts)
        self._server = _Quiet(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/"

    def link(self) -> str:
        """The address to open: with a token that works once, where browsers need one."""
        return f"{self.url}login?token={self.site.sessions.link_token()}" if self.site.ui.token else self.url

    def serve(self, began: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is called."""
        self._socket.listen(128)
        began()
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End serving; safe in a signal handler."""
        self.site.pulse.stop()
        self._server.should_exit = True
