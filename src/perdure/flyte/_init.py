"""`init` and its kin: nothing to connect to, so they only set the level of logs."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..api._dual import Dual
from ._image import INTERFACE

R = TypeVar("R")

logger = logging.getLogger("flyte.user")
"""For scripts: shows records from INFO on, on stderr."""
system_logger = logging.getLogger("flyte")
_state: dict[str, str] = {"project": "local", "domain": "development"}


class _Stderr(logging.StreamHandler[Any]):
    """Writes to `sys.stderr` as it is at the moment."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None: ...


def _set_up_loggers() -> None:
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Stderr())
    system_logger.setLevel(logging.WARNING)


_set_up_loggers()


def init_locally(
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    root_dir: Path | None = None,
    log_level: int | None = None,
    log_format: str | None = None,
    reset_root_logger: bool = False,
    user_log_level: int | None = None,
    endpoint: str | None = None,
    headless: bool = False,
    insecure: bool = False,
    insecure_skip_verify: bool = False,
    ca_cert_file_path: str | None = None,
    auth_type: str = "Pkce",
    command: list[str] | None = None,
    proxy_command: list[str] | None = None,
    api_key: str | None = None,
    client_id: str | None = None,
    client_credentials_secret: str | None = None,
    auth_client_config: Any = None,
    rpc_retries: int = 3,
    http_proxy_url: str | None = None,
    disable_keyring: bool = False,
    storage: Any = None,
    batch_size: int = 1000,
    image_builder: str = "local",
    images: dict[str, str] | None = None,
    image_registry: str | None = None,
    source_config_path: Path | None = None,
    sync_local_sys_paths: bool = True,
    load_plugin_type_transformers: bool = True,
    local_persistence: bool = False,
    local_tracked: bool = False,
    local_tracked_strict: bool = False,
    scopes: list[str] | None = None,
) -> None:
    """Set the levels of the loggers, and remember project and domain. Settings of a cluster are ignored."""
    if log_level is not None:
        system_logger.setLevel(log_level)
    if user_log_level is not None:
        logger.setLevel(user_log_level)
    _state.update({key: value for key, value in (("project", project), ("domain", domain)) if value})


def init_with_config(
    path_or_config: Any = None,
    root_dir: Path | None = None,
    log_level: int | None = None,
    log_format: str = "console",
    user_log_level: int | None = None,
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    storage: Any = None,
    batch_size: int = 1000,
    image_builder: str | None = None,
    images: tuple[str, ...] | None = None,
    sync_local_sys_paths: bool = True,
) -> None:
    """As `init`; the configuration of a cluster is not read."""
    init_locally(project=project, domain=domain, log_level=log_level, user_log_level=user_log_level)


def init_with_api_key(
    api_key: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    root_dir: Path | None = None,
    log_level: int | None = None,
    log_format: str | None = None,
    storage: Any = None,
    batch_size: int = 1000,
    image_builder: str = "local",
    images: dict[str, str] | None = None,
    sync_local_sys_paths: bool = True,
    insecure_skip_verify: bool = False,
    ca_cert_file_path: str | None = None,
) -> None:
    """As `init`; the key is not used."""
    init_locally(project=project, domain=domain, log_level=log_level)


def init_within_cluster(
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    api_key: str | None = None,
    endpoint: str | None = None,
    insecure: bool = False,
) -> dict[str, Any]:
    """As `init`; there is no cluster."""
    init_locally(project=project, domain=domain)
    return {}


def init_with_passthrough(
    endpoint: str | None = None,
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    insecure: bool = False,
) -> dict[str, Any]:
    """As `init`; there is no endpoint."""
    init_locally(project=project, domain=domain)
    return {}


def in_two_colours(fn: Callable[..., R], name: str) -> Dual[..., R]:
    """A quick function with an `aio` form."""

    async def aio(*args: Any, **kwargs: Any) -> R:
        return fn(*args, **kwargs)

    found: Dual[..., R] = Dual(fn, aio)
    found.__name__ = found.__qualname__ = name  # type: ignore[attr-defined]
    return found


init = in_two_colours(init_locally, "init")
init_from_config = in_two_colours(init_with_config, "init_from_config")
init_from_api_key = in_two_colours(init_with_api_key, "init_from_api_key")
init_in_cluster = in_two_colours(init_within_cluster, "init_in_cluster")
init_passthrough = in_two_colours(init_with_passthrough, "init_passthrough")


def version() -> str:
    """The version of Flyte with the interface that perdure offers."""
    return INTERFACE


def current_project() -> str:
    """The project that `init` was given."""
    return _state["project"]


def current_domain() -> str:
    """The domain that `init` was given."""
    return _state["domain"]


def is_control_plane_available() -> bool:
    """Always `False`: there is no control plane."""
    return False


def custom_excepthook(exc_type: Any, exc_value: Any, exc_tb: Any) -> None:
    """Print an uncaught exception, as Python does."""
    traceback.print_exception(exc_type, exc_value, exc_tb)
