"""Names that act on a Flyte cluster: deployments, served apps, images built elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._absent import absent_names
from ._init import in_two_colours
from ._notes import note, say


@dataclass(frozen=True)
class ImageBuild:
    """An image that a build would have made."""

    uri: str | None
    remote_run: Any = None


def build_image(image: Any, dry_run: bool = False, force: bool = False, wait: bool = True) -> ImageBuild:
    """Nothing is built: bodies run in this process, without an image."""
    note("build", getattr(image, "name", None) or "an image")
    say()
    return ImageBuild(getattr(image, "uri", None))


def build_all_images(*envs: Any, copy_style: str = "loaded_modules", seed_cache: Any = None) -> dict[str, ImageBuild]:
    """Nothing is built; the images by the names of their environments."""
    return {env.name: build_image(env.image) for env in envs}


build = in_two_colours(build_image, "build")
build_images = in_two_colours(build_all_images, "build_images")

__getattr__ = absent_names(
    "flyte",
    ("AppHandle", "deploy", "load_plugin_config", "run_python_script", "serve"),
    "there is no cluster to act on; tasks run on this machine (flyte.run), or by workers (perdure serve)",
)
