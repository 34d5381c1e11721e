"""How an engine's API is reached."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Final

import aiodocker
import aiohttp

from perdure.containers.redaction import bare_url
from perdure.errors import UsageError

NO_CONNECTION: Final = 900
"""The client's own status for a request that reached no server."""

_OUTAGES: Final = ("shutting down", "transport is closing", "connection refused", "connection error", "unavailable")
"""Phrases in a 500 answer of an engine that cannot act now, although the request is right."""


def connect(url: str, environ: Mapping[str, str]) -> tuple[str, aiohttp.BaseConnector]:
    """The base of all requests' URLs, and the connector.

    Every call opens a new connection. A kept connection that the engine has closed would fail the next call, and a
    new local connection costs less than 0.1 ms.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return "unix://localhost", aiohttp.UnixConnector(rest, limit=0, force_close=True)
    if scheme not in ("tcp", "http", "https"):
        raise UsageError(f"No container engine can be reached by {bare_url(url)!r}: use unix, tcp, http or https.")
    secure = scheme == "https" or bool(environ.get("DOCKER_TLS_VERIFY"))
    context: ssl.SSLContext | bool = _certificates(environ) if secure else True
    connector = aiohttp.TCPConnector(ssl=context, limit=0, force_close=True)
    return f"{'https' if secure else 'http'}://{rest.rstrip('/')}", connector


async def close(docker: aiodocker.Docker) -> None:
    """Closes all connections."""
    await docker.close()
    await docker.connector.close()  # a connector that is handed to the client stays open


def is_outage(error: aiodocker.DockerError) -> bool:
    """Whether the engine cannot, rather than the request being wrong."""
    if error.status in (502, 503, 504, NO_CONNECTION):
        return True
    return error.status >= 500 and any(words in error.message for words in _OUTAGES)


def is_gone(error: aiodocker.DockerError) -> bool:
    """Whether there is no such container. Podman answers 500 where the container vanished during the question."""
    return error.status == 404 or (error.status >= 500 and "no such container" in error.message)


def _certificates(environ: Mapping[str, str]) -> ssl.SSLContext:
    """As Docker's own client: the certificates in DOCKER_CERT_PATH, else the system's."""
    place = environ.get("DOCKER_CERT_PATH")
    if not place:
        return ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=os.path.join(place, "ca.pem"))
        context.load_cert_chain(os.path.join(place, "cert.pem"), os.path.join(place, "key.pem"))
    except OSError as error:
        raise UsageError(f"DOCKER_CERT_PATH={place} holds no usable ca.pem, cert.pem and key.pem: {error}") from error
    return context
