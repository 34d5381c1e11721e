"""`init` and its kin: nothing to connect to, so they only set the level of logs."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from .. import __version__
from ..api._dual import Dual

logger = logging.getLogger("flyte")
system_logger = logging.getLogger("flyte.system")
_state: dict[str, str] = {"project": "local", "domain": "development"}


def _init(
    org: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    root_dir: Any = None,
    log_level: int | None = None,
    **ignored: Any,
) -> None:
    """Set the level of logs; addresses and credentials of a cluster are ignored."""
    if log_level is not None:
        logger.setLevel(log_level)
    _state.update({key: value for key, value in (("project", project), ("domain", domain)) if value})


def _from_config(path_or_config: Any = None, root_dir: Any = None, log_level: int | None = None, **more: Any) -> None:
    """As `init`; the configuration of a cluster is not read."""
    _init(root_dir=root_dir, log_level=log_level, **more)


def _from_key(api_key: str | None = None, **more: Any) -> None:
    """As `init`; the key is not used."""
    _init(**more)


def _in_cluster(*args: Any, **more: Any) -> dict[str, Any]:
    """As `init`; there is no cluster."""
    return {}


def _pair(fn: Any, name: str) -> Any:
    async def aio(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    fn.__name__ = fn.__qualname__ = name
    return Dual(fn, aio)


init = _pair(_init, "init")
init_from_config = _pair(_from_config, "init_from_config")
init_from_api_key = _pair(_from_key, "init_from_api_key")
init_in_cluster = _pair(_in_cluster, "init_in_cluster")
init_passthrough = _pair(lambda *args, **more: {}, "init_passthrough")


def version() -> str:
    """The version of perdure."""
    return __version__


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
