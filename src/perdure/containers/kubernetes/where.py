"""What a URL `kubernetes://namespace?option=value&...` says."""

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
    """Which cluster, and how pods are to be there."""

    url: str
    namespace: str
    """Empty: that of the context, or the one that this process runs in."""
    context: str | None
    """Of the kubeconfig; `None`: its current one, or the cluster that this process runs in."""
    copilot: str
    """The image that holds perdure."""
    bucket_secret: str | None
    """A Secret whose keys the copilot gets as environment variables: what lets it into the bucket."""
    service_account: str | None
    template: dict[str, Any]
    """What every pod is to have, as a pod's manifest."""
    pending: float = 600.0
    """Seconds for which a pod that cannot start is waited for."""
    grace: int = 600
    """Seconds for the outputs to be taken to the bucket."""
    ttl: float = 604_800.0
    """Seconds after which a pod that has ended is removed although nobody has asked how."""


def read_where(url: str) -> Where:
    """Raises `UsageError` where it makes no sense."""
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
            raise UsageError(f"{shown}: it has no option {name!r}; there are {', '.join((*_TEXTS, *_NUMBERS))}")
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
