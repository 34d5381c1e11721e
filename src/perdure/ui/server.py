"""The HTTP servers of `perdure ui` and `perdure serve`: the address, the one-time link, and the end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from ..errors import UsageError
from .app import Site, create_app, metrics_app
from .guard import is_loopback
from .metrics import Figures
from .settings import UiSettings

STOP_SECONDS = 2
"""How long requests under way may take after the server was told to end."""


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # The command line has handlers of its own.
        yield


class WebServer:
    """An application at an address."""

    options: str
    """The options of the command line that give the address."""

    def __init__(self, build: Callable[[int], Any], host: str, port: int) -> None:
        """
        Args:
            build: makes the ASGI application for the port.
            host: the address to listen at.
            port: 0 for a free port.

        Raises:
            UsageError: the address cannot be used.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise UsageError(
                f"nothing can listen at {host}:{port}: {error.strerror}; choose another address with {self.options}"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self._server = _Quiet(
            uvicorn.Config(
                build(self.port),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}/"

    def serve(self, began: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop` is called."""
        self._socket.listen(128)
        began()
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread of its own, until the process ends."""
        self._socket.listen(128)
        threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="perdure-web", daemon=True
        ).start()

    def stop(self) -> None:
        """End serving; safe in a signal handler."""
        self._server.should_exit = True


class PageServer(WebServer):
    """The pages of the store in use."""

    options = "--host and --port"

    def __init__(
        self, ui: UiSettings, host: str, port: int, hosts: tuple[str, ...] = (), figures: Figures | None = None
    ) -> None:
        """
        Args:
            ui: what the pages show and do.
            host: the address to listen at. Another address than loopback needs `ui.token`.
            port: 0 for a free port.
            hosts: further names under which browsers reach this server.
            figures: figures of this process for `/metrics`.

        Raises:
            UsageError: the address cannot be used.
        """
        if not is_loopback(host) and not ui.token:
            raise UsageError(f"{host} can be reached from other machines, so browsers need a token")
        self.site = site = Site(ui, figures)
        super().__init__(lambda port: create_app(site, host=host, port=port, hosts=hosts), host, port)

    def link(self) -> str:
        """The address to open: with a token that works once, where browsers need one."""
        return f"{self.url}login?token={self.site.sessions.link_token()}" if self.site.ui.token else self.url

    def stop(self) -> None:
        """End serving; safe in a signal handler."""
        self.site.pulse.stop()
        super().stop()


class MetricsServer(WebServer):
    """`/metrics` alone."""

    options = "--metrics"

    def __init__(self, host: str, port: int, hosts: tuple[str, ...] = (), figures: Figures | None = None) -> None:
        """The arguments are those of `PageServer`. The figures tell no value of a run, so no address needs a token."""
        super().__init__(lambda port: metrics_app(figures, host=host, port=port, hosts=hosts), host, port)
