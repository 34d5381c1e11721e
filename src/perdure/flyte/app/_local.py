"""Apps on this machine: `flyte.with_servecontext(mode="local").serve(app)`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib
import inspect
import os
import shlex
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ...errors import UsageError

_PAUSE = 0.05
_LIMIT = 60.0


class LocalApp:
    """An app that this process serves. The app ends with the process at the latest."""

    def __init__(self, app: Any, env_vars: dict[str, str], limit: float) -> None:
        self.name: str = app.name
        self.endpoint: str = app.endpoint
        self.url = self.endpoint
        self._app = app
        self._limit = limit
        self._stop = _begin(app, env_vars)
        self._ended = False
        atexit.register(self.deactivate)

    def __repr__(self) -> str:
        return f"<LocalApp {self.name} at {self.endpoint}>"

    def is_active(self) -> bool:
        """Whether the app answers."""
        return not self._ended and _answers(self.endpoint)

    def is_deactivated(self) -> bool:
        """Whether the app was ended."""
        return self._ended

    def activate(self, wait: bool = False) -> LocalApp:
        """Wait until the app answers.

        Raises:
            TimeoutError: the app does not answer within the limit.
        """
        for _ in range(max(1, round(self._limit / _PAUSE))):
            if _answers(self.endpoint):
                return self
            time.sleep(_PAUSE)
        raise TimeoutError(f"app {self.name} does not answer at {self.endpoint} after {self._limit:g} s")

    def deactivate(self, wait: bool = False) -> LocalApp:
        """End the app. A function of `@app.server` cannot be interrupted: its thread ends with the process."""
        if not self._ended:
            self._ended = True
            atexit.unregister(self.deactivate)
            self._stop()
            _call(self._app.hooks["shutdown"])
        return self

    @contextlib.contextmanager
    def ephemeral_ctx_sync(self) -> Iterator[LocalApp]:
        """The app for the time of a `with`."""
        try:
            yield self.activate()
        finally:
            self.deactivate()

    @contextlib.asynccontextmanager
    async def ephemeral_ctx(self) -> AsyncIterator[LocalApp]:
        """The app for the time of an `async with`."""
        try:
            yield await asyncio.to_thread(self.activate)
        finally:
            await asyncio.to_thread(self.deactivate)


class ServeContext:
    """See `with_servecontext`."""

    def __init__(self, mode: str | None, env_vars: dict[str, str], limit: float) -> None:
        self._mode = mode
        self._env_vars = env_vars
        self._limit = limit

    def serve(self, app_env: Any) -> LocalApp:
        """Begin to serve the app on this machine.

        Raises:
            UsageError: the mode is not "local", or the app has nothing to serve.
        """
        if self._mode != "local":
            raise UsageError(f'app {app_env.name}: perdure serves apps on this machine only; pass mode="local"')
        return LocalApp(app_env, self._env_vars, self._limit)


def with_servecontext(
    mode: str | None = None,
    *,
    env_vars: dict[str, str] | None = None,
    activate_timeout: float | None = None,
    **ignored: Any,
) -> ServeContext:
    """Settings for `serve`; settings of a cluster have no effect."""
    return ServeContext(mode, env_vars or {}, activate_timeout or _LIMIT)


def _begin(app: Any, env_vars: dict[str, str]) -> Callable[[], None]:
    """Begin to serve; the result ends the app."""
    if _answers(app.endpoint):
        raise UsageError(f"app {app.name}: another server answers at {app.endpoint}; end that server, or change port")
    if app.command:
        return _program(app, {**(app.env_vars or {}), **env_vars})
    _call(app.hooks["startup"])
    if app.hooks["server"] is not None:
        _in_thread(app, lambda: _call(app.hooks["server"]))
        return lambda: None
    if getattr(app, "app", None) is not None:
        return _asgi(app)
    raise UsageError(f"app {app.name} has nothing to serve: give command=..., or a function under @{app.name}.server")


def _program(app: Any, env_vars: dict[str, str]) -> Callable[[], None]:
    words = shlex.split(app.command) if isinstance(app.command, str) else list(app.command)
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    process = subprocess.Popen(words, env={**os.environ, **env_vars})

    def stop() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return stop


def _asgi(app: Any) -> Callable[[], None]:
    try:
        uvicorn: Any = importlib.import_module("uvicorn")
    except ImportError:
        raise UsageError(f"app {app.name} needs uvicorn on this machine: pip install uvicorn") from None
    server = uvicorn.Server(uvicorn.Config(app.app, host="127.0.0.1", port=app.get_port().port, log_level="warning"))
    thread = _in_thread(app, server.run)

    def stop() -> None:
        server.should_exit = True
        thread.join(5)

    return stop


def _in_thread(app: Any, work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, name=f"app-{app.name}", daemon=True)
    thread.start()
    return thread


def _call(function: Callable[[], Any] | None) -> None:
    if function is not None:
        result = function()
        if inspect.iscoroutine(result):
            asyncio.run(result)


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
