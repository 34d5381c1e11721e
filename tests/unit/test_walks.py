"""Trees are walked and removed by descriptors, iteratively: no call in the source that follows paths, or recurses."""

from __future__ import annotations

import ast
from pathlib import Path

import perdure

SOURCE = Path(perdure.__file__).parent
FORBIDDEN = {"rmtree", "walk", "fwalk", "scandir", "rglob", "glob", "iglob", "iterdir", "copytree"}
ALLOWED = {
    ("containers/memory.py", "copytree"),  # the engine in memory, for tests
}


def test_no_module_walks_by_path() -> None:
    """The ways are `OpenTree.walk`, `names_in`, `remove_tree` and `discard_tree`."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        name = file.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Attribute(ast.Name("os" | "shutil" | "glob" | "Path"), attribute) if attribute in FORBIDDEN:
                    found.add((name, attribute))
    # The conformance kit works in directories of its own, beside other systems.
    found = {each for each in found if not each[0].startswith("testing/conformance/")}
    # `perdure.flyte` copies and lists the user's own directories on behalf of the user's own code, as Flyte does.
    found = {each for each in found if not each[0].startswith("flyte/") or each[1] not in ("copytree", "walk")}
    # `perdure check` reads the package that its user names.
    found.discard(("testing/check/modules.py", "walk"))
    assert found <= ALLOWED
