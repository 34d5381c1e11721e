"""A hook of mkdocs: links to files of the repository outside of `docs/` become texts, as the site lacks the files.

A line `[names of MODULE]` becomes the reference of each public name of the module.

Raises an error for a link to a file that does not exist, so that the site is as strict with these links as with others.
"""

from __future__ import annotations

import importlib
import os
import re
from types import ModuleType
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(#[^)]*)?\)")
NAMES = re.compile(r"^\[names of ([\w.]+)\]$", re.MULTILINE)


def _reference(found: re.Match[str]) -> str:
    module = importlib.import_module(found[1])
    names = [name for name in module.__all__ if not isinstance(getattr(module, name), ModuleType)]
    return "\n\n".join(f"::: {found[1]}.{name}" for name in names)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs with the text of each page."""
    root = os.path.abspath(config["docs_dir"])
    here = os.path.dirname(page.file.abs_src_path)

    def replaced(found: re.Match[str]) -> str:
        path = os.path.normpath(os.path.join(here, found[2]))
        if path.startswith(root + os.sep):
            return found[0]
        if not os.path.exists(path):
            raise FileNotFoundError(f"{page.file.src_path} links to {found[2]}, which does not exist")
        return f"`{found[1]}`" if "`" not in found[1] and "/" in found[1] else found[1]

    return NAMES.sub(_reference, LINK.sub(replaced, markdown))
