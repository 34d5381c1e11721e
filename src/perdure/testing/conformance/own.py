"""perdure as a system under attack: any of its stores, or a store of another author."""

from __future__ import annotations

import importlib
import os
import sys
import uuid
from pathlib import Path

from ...errors import UsageError
from ...store import is_postgres, public_url, store_path
from .checking import PROMISES
from .system import PYTHON, ProcessTrial, Unsupported

PROGRAMS = Path(__file__).parent / "copied" / "flow.py"
"""In a directory that is no package, because the file can be imported beside its copied log alone."""
EDITED = """
from outside import note
from flow import env, seen, step


@env.task
async def edited() -> list[int]:
    found = [seen("a", await step("a", 1))]
    {steps}
    return found
"""
VERSIONS = {
    1: 'found.append(seen("b", await step("b", 2)))',
    2: 'found.append(seen("b2", await step("b2", 20)))\n    found.append(seen("c", await step("c", 3)))',
}
_names = [
    "steps", "slow-steps", "values", "fan-out", "race", "child", "thread", "generator", "other-generator", "cache",
    "retry", "sleep", "clock", "asks", "asks-again", "fails", "failures", "data", "edited", "container",
]  # fmt: skip


class PerdureSystem:
    """perdure on a store (see `System`).

    Runs of earlier checks do not disturb, because each run has a fresh name. The runs stay in the store, so the store
    should be made for the check.
    """

    claims = frozenset(PROMISES)
    lease = 2.0

    def __init__(self, url: str, *, opener: str = "", image: str = "") -> None:
        """Attack the store at that URL.

        Args:
            url: the store, in the form for `perdure.init`; `memory:` for a store in memory.
            opener: `MODULE:FUNCTION`, called in place of `perdure.store.open_store`, for stores of other authors. The
                function gets the URL and `durability`, and returns a store and a liveness.
            image: an image with a shell, for attacks on containers.
        """
        self.url = _absolute("memory://" if url in ("memory:", "memory") else url)
        self.name = f"perdure on {public_url(self.url)}" + (f" through {opener}" if opener else "")
        self.outlives = self.url != "memory://"
        self.programs = frozenset(_names)
        self._image = image
        self._environment = {"PERDURE_STORE": self.url, "PERDURE_LEASE": str(self.lease)}
        if opener:
            _refuse_opener(opener)
            places = [os.path.abspath(place) for place in sys.path if place]
            self._environment.update(CONFORMANCE_OPEN=opener, PYTHONPATH=os.pathsep.join(places))
        if image:
            self._environment["CONFORMANCE_IMAGE"] = image

    def trial(self, program: str, folder: Path) -> ProcessTrial:
        if program == "container" and not self._image:
            raise Unsupported("no image was named (--image)")
        run = f"conformance-{uuid.uuid4().hex}"
        trial = ProcessTrial(folder, [PYTHON, "flow.py", program, run], {"flow.py": PROGRAMS}, self._environment)
        for version, steps in VERSIONS.items():
            (folder / f"edited_{version}.py").write_text(EDITED.replace("{steps}", steps))
        (folder / "edited.py").write_text((folder / "edited_1.py").read_text())
        return trial


def _refuse_opener(opener: str) -> None:
    """Raise `UsageError` where the opener cannot be imported."""
    module, _, name = opener.partition(":")
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{opener!r} opens no store: write MODULE:FUNCTION, importable from here ({error})") from None


def _absolute(url: str) -> str:
    """The URL for processes in other directories."""
    if is_postgres(url):
        return url
    path = store_path(url)
    return f"sqlite:///{os.path.abspath(path)}" if path else url
