"""The copilot's image without a registry: the tests' root file system, the interpreter that runs the tests, and what
perdure needs of this environment's packages.

`deploy/Dockerfile.copilot` is what a user builds; it begins from an image that has to be pulled.
"""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tests.containers.engines import image_tar

PACKAGES = ("msgspec", "click", "obstore", "PyYAML")
LIBRARIES = re.compile(r"(/\S+\.so\S*)(?: \(0x)?")
LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "lib2to3"}
SITE = "/opt/copilot"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def copilot_tar() -> bytes:
    """A root file system with a program `perdure`."""
    out = io.BytesIO(image_tar())
    with tarfile.open(fileobj=out, mode="a") as tar:
        interpreter = os.path.realpath(sys.executable)
        files = {interpreter, *_libraries(Path(interpreter))}
        stdlib = Path(sysconfig.get_path("stdlib"))
        for path in _below(stdlib):
            tar.add(path, str(path), recursive=False)
            if path.suffix == ".so":
                files |= _libraries(path)
        for name in PACKAGES:
            for found in importlib.metadata.files(name) or ():
                source = Path(found.locate())  # type: ignore[arg-type]
                if source.suffix != ".pyc" and ".." not in found.parts:
                    tar.add(source, f"{SITE}/{found}", recursive=False)
                    if source.suffix == ".so":
                        files |= _libraries(source)
        import perdure

        top = Path(perdure.__file__).parent
        for path in _below(top):
            tar.add(path, f"{SITE}/perdure/{path.relative_to(top)}", recursive=False)
        metadata = f"Metadata-Version: 2.1\nName: perdure\nVersion: {perdure.__version__}\n"
        _add(tar, f"{SITE}/perdure-{perdure.__version__}.dist-info/METADATA", metadata, 0o644)
        # The bucket's client wants to know whom to trust, whether it is asked to or not.
        files.add(CERTIFICATES)
        for file in sorted(files):
            tar.add(os.path.realpath(file), file, recursive=False)
        start = f"import sys; sys.path.insert(0, {SITE!r}); from perdure.cli import main; main()"
        home = f"PYTHONHOME={sys.base_prefix}"
        _add(tar, "bin/perdure", f'#!/bin/sh\n{home} exec {interpreter} -c "{start}" "$@"\n', 0o755)
    return out.getvalue()


def _below(top: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if name not in LEFT_OUT]
        for name in files:
            if not name.endswith((".pyc", ".a")):
                yield Path(folder, name)


def _libraries(program: Path) -> set[str]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return set(LIBRARIES.findall(said))


def _add(tar: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(text.encode())
    tar.addfile(entry, io.BytesIO(text.encode()))
