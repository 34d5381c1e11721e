"""Run a container as a user who is not root, on an engine that is: what it leaves belongs to others.

    unprivileged.py ENGINE-URL IMAGE SCRIPT

Everything is imported before the user changes: the interpreter may lie where only root may read.
"""

from __future__ import annotations

import asyncio  # noqa: F401
import encodings.idna  # noqa: F401
import importlib
import json
import os
import pkgutil
import subprocess  # noqa: F401
import sys
import tarfile  # noqa: F401

import aiodocker  # noqa: F401

import perdure
import perdure.containers
from perdure.extras import ContainerTask
from perdure.io import Dir

for package in (perdure, perdure.containers, importlib.import_module("perdure.containers.copilot")):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> None:
    url, image, script = sys.argv[1:]
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    perdure.init("perdure.db", container_engine=url)
    task = ContainerTask(
        name="foreign", image=image, command=["/bin/sh", "-c", script], outputs={"d": Dir, "n": int}, network="none"
    )
    found = perdure.run(task).result
    print(json.dumps([sorted(found.d.files()), found.n]))


if __name__ == "__main__":
    main()
