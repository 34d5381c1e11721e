"""Flyte's apps: each can be declared, and served on this machine with `with_servecontext(mode="local")`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .._absent import absent_names

F = TypeVar("F", bound=Callable[..., Any])


class _Declared:
    """A part of an app, recorded only."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.args = args
        self.__dict__.update(settings)


class AppEnvironment:
    """An app: `flyte.with_servecontext(mode="local")` serves the app on this machine; other settings are recorded only.

    `flyte.serve` and `flyte.deploy` say that there is no cluster.
    """

    def __init__(
        self, name: str, depends_on: Any = None, *, port: Any = 8080, command: Any = None, env_vars: Any = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.name = name
        self.depends_on = list(depends_on or ())
        self.port = port
        self.command = command
        self.env_vars = env_vars
        self.hooks: dict[str, Any] = {"startup": None, "server": None, "shutdown": None}
        self.__dict__.update(settings)

    def get_port(self) -> Port:
        """The port with its attributes."""
        return self.port if isinstance(self.port, Port) else Port(port=self.port)

    @property
    def endpoint(self) -> str:
        """The address on this machine."""
        return f"http://localhost:{self.get_port().port}"

    def server(self, fn: F) -> F:
        """The function that serves."""
        self.hooks["server"] = fn
        return fn

    def on_startup(self, fn: F) -> F:
        """The function to call before."""
        self.hooks["startup"] = fn
        return fn

    def on_shutdown(self, fn: F) -> F:
        """The function to call after."""
        self.hooks["shutdown"] = fn
        return fn


class ConnectorEnvironment(AppEnvironment):
    """An app that serves connectors: recorded only."""


class ArtifactValue(_Declared):
    """A parameter's value from an artifact."""


class Domain(_Declared):
    """The domain of an app."""


class Link(_Declared):
    """A link that a console shows."""


class Parameter(_Declared):
    """A parameter of an app."""


class Port(_Declared):
    """The port of an app."""

    port: int


class RunOutput(_Declared):
    """A parameter's value from a run."""


class Scaling(_Declared):
    """The number of replicas."""


class Subdomain(_Declared):
    """A part of the domain of an app."""


class Timeouts(_Declared):
    """Limits of time of an app."""


class AppEndpoint(_Declared):
    """The address of another app."""


@dataclass(frozen=True)
class AppContext:
    """Where an app is served."""

    mode: str = "local"


def ctx() -> AppContext:
    """The context of the app."""
    return AppContext()


__getattr__ = absent_names(
    "flyte.app",
    ("DeployedAppEnvironment", "get_parameter", "register_app_deployer"),
    "perdure serves apps on this machine only",
)

__all__ = [
    "AppEndpoint",
    "AppEnvironment",
    "ArtifactValue",
    "ConnectorEnvironment",
    "Domain",
    "Link",
    "Parameter",
    "Port",
    "RunOutput",
    "Scaling",
    "Subdomain",
    "Timeouts",
    "ctx",
]
