"""Flyte's `ContainerTask`: perdure's, with the images, resources and settings of Flyte."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..api import resources as own
from ..api._container_settings import option_names
from ..api.container import ContainerTask as PerdureContainerTask
from ..core.body.branch import Branch
from ._failures import with_failures
from ._image import Image
from ._notes import note
from ._resources import Resources
from ._settings import cache_request, retry_strategy, task_timeout

_CLUSTER = frozenset({
    "docs", "interruptible", "links", "max_inline_io_bytes", "plugin_config", "pod_template", "produces_artifacts",
    "queue", "report", "reusable", "service_account", "triggers",
})  # fmt: skip
"""Settings that are recorded only."""


class ContainerTask(PerdureContainerTask):
    """A program in an image as a typed task; see `perdure.extras.ContainerTask`.

    Of an `Image`, the name is used: a base as it is, and a chain of layers by its `uri`, as nothing is built here. An
    image from a Dockerfile is built by the container engine.
    """

    def __init__(
        self,
        name: str,
        image: str | Image | own.Image,
        command: Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        arguments: Sequence[str] | None = None,
        outputs: Mapping[str, Any] | None = None,
        input_data_dir: str | os.PathLike[str] = "/var/inputs",
        output_data_dir: str | os.PathLike[str] = "/var/outputs",
        metadata_format: Literal["JSON", "YAML", "PROTO"] = "JSON",
        local_logs: bool = True,
        file_input_layout: Literal["DIRECT", "NAMED_DIR"] = "DIRECT",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            name, _image(image), command, inputs, arguments, outputs, input_data_dir, output_data_dir, metadata_format,
            local_logs, file_input_layout, **_options(name, kwargs),
        )  # fmt: skip
        self.image = image
        self.short_name = name

    def protocol(self, branch: Branch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Task.protocol`; failures are raised as Flyte does."""
        return with_failures(super().protocol(branch, args, kwargs))

    def override(self, **settings: Any) -> PerdureContainerTask:
        """The same program under other settings; settings not given stay."""
        if "image" in settings:
            settings["image"] = _image(settings["image"])
        return super().override(**_options(self.name, settings))


def _image(image: Any) -> Any:
    if not isinstance(image, Image):
        return image
    if image.dockerfile is not None:
        return own.Image.from_dockerfile(image.dockerfile)
    return image.uri


def _options(name: str, given: dict[str, Any]) -> Any:
    """The settings as perdure takes them."""
    options: dict[str, Any] = {}
    for setting, value in given.items():
        if setting in _CLUSTER and not (setting == "pod_template" and isinstance(value, (str, Mapping))):
            if value:
                note(setting, f"container task {name}")
        elif setting == "entrypoint" and isinstance(value, bool):
            continue  # Flyte's mark of a task for people; perdure's is the image's program
        elif value is not None or setting not in option_names():
            options[setting] = _CONVERTED.get(setting, _same)(value)
    return options


def _same(value: Any) -> Any:
    return value


def _resources(value: Any) -> Any:
    """A range counts with its upper end."""
    if not isinstance(value, Resources):
        return value
    device = value.get_device()
    return own.Resources(
        cpu=value.cpu[1] if isinstance(value.cpu, tuple) else value.cpu,
        memory=value.memory[1] if isinstance(value.memory, tuple) else value.memory,
        gpu=device.quantity if device is not None else 0,
        shm=value.get_shared_memory() or None,
    )


_CONVERTED = {
    "cache": cache_request,
    "resources": _resources,
    "retries": retry_strategy,
    "timeout": task_timeout,
}
