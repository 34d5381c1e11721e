"""The parts of a URL `kubernetes://namespace?option=value&...`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ...errors import UsageError
from ..redaction import bare_url
from .template import check_template, read_template

SCHEME = "kubernetes"
_TEXTS = ("context", "copilot", "bucket_secret", "service_account", "template")
_NUMBERS = ("pending", "grace", "ttl")
COPILOT_VARIABLE = "PERDURE_COPILOT_IMAGE"


@dataclass(frozen=True)
class Where:
    """The cluster, and the common settings of pods."""

    url: str
    namespace: str
    """Empty: the context's namespace, or the namespace of this process."""
    context: str | None
    """A context of the kubeconfig; `None`: the current context, or the cluster around this process."""
    copilot: str
    """The image that holds perdure."""
    bucket_secret: str | None
    """A Secret whose keys become environment variables of the copilot: the credentials for the bucket."""
    service_account: str | None
    template: dict[str, Any]
    """Additions to every pod, as a pod's manifest."""
    pending: float = 600.0
    """Seconds to wait for a pod that cannot start."""
    grace: int = 600
    """Seconds for the outputs to be taken to the bucket."""
    ttl: float = 604_800.0
    """Seconds after which the pod of an abandoned run is removed."""


def read_where(url: str) -> Where:
    """Raises `UsageError` where the URL makes no sense."""
    parts = urlsplit(url)
    shown = f"The container engine {bare_url(url)!r}"
    options: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _NUMBERS:
            try:
                options[name] = int(value)
            except ValueError:
                options[name] = -1
            if options[name] < 0:
                raise UsageError(f"{shown}: {name} must be a number of seconds, not {value!r}")
        elif name in _TEXTS:
            options[name] = value
        else:
            raise UsageError(f"{shown}: there is no option {name!r}; there are {', '.join((*_TEXTS, *_NUMBERS))}")
    if parts.path.strip("/"):
        raise UsageError(f"{shown}: write it as kubernetes://namespace?context=name")
    copilot = options.pop("copilot", None) or os.environ.get(COPILOT_VARIABLE)
    if not copilot:
        raise UsageError(
            f"{shown}: pods need an image that holds perdure, to bring their inputs and outputs. Build one "
            "(deploy/Dockerfile.copilot) and name it: kubernetes://namespace?copilot=IMAGE, or the environment "
            f"variable {COPILOT_VARIABLE}"
        )
    source = options.pop("template", None)
    template = read_template(source, shown) if source else {}
    check_template(template, shown)
    return Where(
        url=bare_url(url),
        namespace=parts.netloc,
        context=options.pop("context", None) or None,
        copilot=copilot,
        bucket_secret=options.pop("bucket_secret", None) or None,
        service_account=options.pop("service_account", None) or None,
        template=template,
        **options,
    )
