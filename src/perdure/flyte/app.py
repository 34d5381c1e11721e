"""Flyte"s apps: absent."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte.app",
    (
        "AppEndpoint",
        "AppEnvironment",
        "ArtifactValue",
        "ConnectorEnvironment",
        "DeployedAppEnvironment",
        "Domain",
        "Link",
        "Parameter",
        "Port",
        "RunOutput",
        "Scaling",
        "Subdomain",
        "Timeouts",
        "ctx",
        "extras",
        "get_parameter",
        "register_app_deployer",
    ),
    "perdure serves no web applications; run the server as a program of its own",
)
