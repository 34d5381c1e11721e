"""Flyte's apps: each can be declared, and nothing is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._absent import absent_names

F = TypeVar("F", bound=Callable[..., Any])


class _Declared:
    """A part of an app, recorded only."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.args = args
        self.__dict__.update(settings)


class AppEnvironment:
    """An app: recorded only. `flyte.serve` and `flyte.deploy` say that there is nothing to serve it."""

    def __init__(self, name: str, depends_on: Any = None, **settings: Any) -> None:
        self.name = name
        self.depends_on = list(depends_on or ())
        self.__dict__.update(settings)

    def server(self, fn: F) -> F:
        """The function that would serve."""
        return fn

    def on_startup(self, fn: F) -> F:
        """The function that would be called before."""
        return fn

    def on_shutdown(self, fn: F) -> F:
        """The function that would be called after."""
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


__getattr__ = absent_names(
    "flyte.app",
    ("DeployedAppEnvironment", "ctx", "get_parameter", "register_app_deployer"),
    "perdure serves no web applications; run the server as a program of its own",
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
]
