"""The API server, as far as perdure needs the API; answers are handed on as JSON.

Every method may raise `EngineUnavailableError`: the server does not answer, or is too busy. The effect of the call
is then unknown, and the caller looks before a retry.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import aiohttp
from kubernetes_asyncio import client, config

from ...errors import EngineUnavailableError, UsageError
from ..engine import LineCutter, LogLine
from ..redaction import bare_url
from .spec import GATE
from .where import Where

Kind = Literal["pods", "secrets", "events"]

QUICK: Final = 30.0
"""Seconds for a call with an immediate answer."""
WATCH: Final = 240
"""Seconds after which the server ends a watch."""
_NAMESPACE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class ClusterRefused(UsageError):
    """The server understands, and refuses: a pod that makes no sense, or a missing permission."""


class Expired(Exception):
    """A watch cannot continue at its version (410 Gone): list again."""


class Cluster:
    """One namespace of a cluster; used from one event loop."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace: Final = namespace
        self.host: Final = bare_url(str(api.configuration.host))
        self.expired = False
        """The credentials have expired: open another connection."""
        self._api = api
        self._welcome = False

    @classmethod
    async def open(cls, where: Where) -> Cluster:
        """Find the cluster by the kubeconfig, or by the settings inside a pod. No request is made yet.

        Raises:
            UsageError: there is no kubeconfig, or no such context in the kubeconfig.
        """
        settings = client.Configuration()
        namespace = where.namespace
        inside = where.context is None and "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
        try:
            if inside:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
                namespace = namespace or await asyncio.to_thread(_own_namespace)
            else:
                # Named, because the library has read the environment at import.
                file = os.environ.get("KUBECONFIG") or os.path.expanduser("~/.kube/config")  # noqa: ASYNC240
                await config.load_kube_config(file, where.context, settings)
                namespace = namespace or _namespace_of(file, where.context)
        except config.ConfigException as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{where.url}: no cluster is known here ({reason}): check KUBECONFIG, or name a context with "
                "kubernetes://namespace?context=NAME"
            ) from None
        settings.retries = False
        settings.connection_pool_maxsize = 0  # no limit: each pod holds two, for watch and logs
        return cls(client.ApiClient(settings), namespace or "default")

    async def close(self) -> None:
        await self._api.close()

    # -- objects -----------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The new object; `None`: an object of the name exists."""
        status, answer = await self._ask("POST", kind, body=body)
        if status == 409 and answer.get("reason") == "AlreadyExists":
            return None
        return self._checked(status, answer)

    async def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """`None`: there is none."""
        status, answer = await self._ask("GET", kind, name)
        return None if status == 404 else self._checked(status, answer)

    async def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> dict[str, Any]:
        """All matching objects, with the version of the list."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        return self._checked(*await self._ask("GET", kind, query={name: text for name, text in query.items() if text}))

    async def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: float | None = None) -> bool:
        """Whether the object was there, with the given uid, if any."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = int(grace)
        status, answer = await self._ask("DELETE", kind, name, body=body)
        if status in (404, 409):  # 409: another object has the name now
            return False
        self._checked(status, answer)
        return True

    async def open_gate(self, name: str, uid: str) -> bool:
        """Let the pod of a uid start; `False`: the pod is not there (any more). Fine if the pod may start already."""
        seen: Any = None
        status, answer = 0, dict[str, Any]()
        while True:
            pod = await self.get("pods", name)
            if pod is None or pod["metadata"]["uid"] != uid:
                return False
            gates = pod["spec"].get("schedulingGates") or []
            left = [gate for gate in gates if gate.get("name") != GATE]
            if len(left) == len(gates):
                return True
            if gates == seen:
                self._checked(status, answer)
            patch = [
                {"op": "test", "path": "/metadata/uid", "value": uid},
                {"op": "test", "path": "/spec/schedulingGates", "value": gates},
                {"op": "replace", "path": "/spec/schedulingGates", "value": left},
            ]
            status, answer = await self._ask("PATCH", "pods", name, body=patch, content="application/json-patch+json")
            if status == 422:
                # The server says no more of a failed test: has another client changed the gates meanwhile?
                seen = gates
            elif status not in (404, 409):
                self._checked(status, answer)

    # -- what goes on for long ---------------------------------------------------------------------------------

    async def watch(self, name: str, version: str) -> AsyncIterator[dict[str, Any]]:
        """Changes of a pod after a version: objects, as `{"type": ..., "object": ...}`. Ends when the server ends
        the watch. `Expired`: list again."""
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH),
        }
        # The server ends a watch in time; a later end means a broken connection.
        timeout = aiohttp.ClientTimeout(total=WATCH + QUICK, sock_connect=QUICK)
        async with self._stream("pods", query=query, timeout=timeout) as response:
            if response.status == 410:
                raise Expired
            if response.status != 200:
                self._checked(response.status, await _answer(response))
            async for line in response.content:
                event: dict[str, Any] = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"].get("code") == 410:
                        raise Expired
                    self._checked(int(event["object"].get("code") or 500), event["object"])
                yield event

    async def log(self, name: str, container: str) -> AsyncIterator[LogLine]:
        """The lines of a container, until the container ends. Nothing where the container has not begun."""
        lines = LineCutter("stdout")
        # After so long a silence the request is made again.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=QUICK, sock_read=WATCH + QUICK)
        query = {"container": container, "follow": "true"}
        async with self._stream("pods", f"{name}/log", query=query, timeout=timeout) as response:
            if response.status in (400, 404):
                return
            if response.status != 200:
                self._checked(response.status, await _answer(response))
            async for data in response.content.iter_any():
                for line in lines.feed(data):
                    yield line
        for line in lines.end():
            yield line

    # -- requests ----------------------------------------------------------------------------------------------

    async def _ask(
        self,
        method: str,
        kind: Kind,
        name: str = "",
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        async with self._request(method, kind, name, query or {}, body, content, QUICK) as response:
            return response.status, await _answer(response)

    @asynccontextmanager
    async def _stream(
        self, kind: Kind, name: str = "", *, query: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._request("GET", kind, name, query, None, "application/json", timeout) as response:
            yield response

    @asynccontextmanager
    async def _request(
        self, method: str, kind: Kind, name: str, query: Mapping[str, str], body: Any, content: str, timeout: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        path = f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")
        try:
            response: aiohttp.ClientResponse = await self._api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=timeout,
            )
            async with response:
                yield response
        except TimeoutError as error:
            raise EngineUnavailableError(f"{self.host} has not answered for {QUICK:.0f} s") from error
        except (aiohttp.ClientError, OSError, EOFError) as error:
            said = str(error) or type(error).__name__
            raise EngineUnavailableError(f"{self.host} does not answer: {said}") from error
        except RuntimeError as error:
            # aiohttp's message where another call has closed the session, because the token had expired.
            if "closed" not in str(error):
                raise
            raise EngineUnavailableError(f"The connection to {self.host} was closed") from error
        except config.ConfigException as error:
            raise EngineUnavailableError(f"{self.host}: no valid credentials: {error}") from error
        except json.JSONDecodeError as error:
            raise EngineUnavailableError(f"An answer of {self.host} broke off: {error}") from error

    def _checked(self, status: int, answer: dict[str, Any]) -> dict[str, Any]:
        if 200 <= status < 300:
            self._welcome = True
            return answer
        said = " ".join(str(answer.get("message") or f"HTTP status {status}").split())
        if status in (429, 409) or status >= 500:
            raise EngineUnavailableError(f"{self.host} cannot serve the request now: {said}")
        if status == 401 and self._welcome:
            # Tokens expire; the next connection takes a new token.
            self.expired = True
            raise EngineUnavailableError(f"{self.host} does not know us any more: {said}")
        if status == 401:
            raise ClusterRefused(f"{self.host} does not know us: check the credentials of the kubeconfig ({said})")
        if status == 403 and "exceeded quota" in said:
            raise EngineUnavailableError(f"the quota of namespace {self.namespace} is used up: {said}")
        if status == 403:
            raise ClusterRefused(
                f"{self.host} does not allow the request: {said}. deploy/role.yaml holds the permissions"
            )
        if status == 404:
            raise ClusterRefused(f"{self.host}: {said}. Is there a namespace {self.namespace}?")
        raise ClusterRefused(f"{self.host} refuses the request: {said}")


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    data = await response.read()
    try:
        found = json.loads(data)
    except ValueError:
        if response.status < 400:
            raise
        found = {"message": data.decode("utf-8", "replace")[:300]}
    return found if isinstance(found, dict) else {"message": str(found)}


def _own_namespace() -> str:
    try:
        with open(_NAMESPACE, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _namespace_of(file: str, context: str | None) -> str:
    contexts, current = config.list_kube_config_contexts(file)
    for one in contexts or ():
        if one["name"] == (context or (current or {}).get("name")):
            return str(one["context"].get("namespace") or "")
    return ""
