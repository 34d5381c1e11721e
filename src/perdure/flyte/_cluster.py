"""Names that act on a Flyte cluster: deployments, served apps, images built elsewhere."""

from __future__ import annotations

from ._absent import absent_names

__getattr__ = absent_names(
    "flyte",
    (
        "AppHandle", "build", "build_images", "deploy", "load_plugin_config", "run_python_script", "serve",
        "with_servecontext",
    ),
    "there is no cluster to act on; tasks run on this machine (flyte.run), or by workers (perdure serve)",
)  # fmt: skip
