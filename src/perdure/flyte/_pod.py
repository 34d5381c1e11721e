"""Pod templates: recorded on environments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PodTemplate:
    """The pod of a task in a cluster: recorded only."""

    pod_spec: Any = None
    primary_container_name: str = "primary"
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    @classmethod
    def from_spec(
        cls,
        pod_spec: Any,
        *,
        primary_container_name: str | None = None,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
    ) -> PodTemplate:
        """A template around a pod's specification."""
        return cls(pod_spec, primary_container_name or "primary", labels, annotations)

    def allow_fuse(self, privileged: bool = False) -> PodTemplate:
        """The same template: nothing is mounted here."""
        return self

    def allow_nested_sandboxing(self) -> PodTemplate:
        """The same template: there is no pod to nest in."""
        return self

    def with_termination_grace_period(self, termination_grace_period: Any) -> PodTemplate:
        """The same template: no pod is ended here."""
        return self
