"""Flyte's look at a git repository: where the configuration of the project would be."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .config import Config
from .config import auto as _auto


def _git(*arguments: str, at: Path | None = None) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=at, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def config_from_root(path: Path | str = ".flyte/config.yaml") -> Config | None:
    """The configuration below the root of the git repository; `None` without a repository or such a file."""
    root = _git("rev-parse", "--show-toplevel")
    if not root:
        return None
    file = Path(root) / path
    return _auto(file) if file.is_file() else None


@dataclass
class GitStatus:
    """The state of a git repository."""

    is_valid: bool = False
    is_tree_clean: bool = False
    remote_url: str = ""
    repo_dir: str = ""
    commit_sha: str = ""

    @classmethod
    def from_current_repo(cls) -> GitStatus:
        """The state of the repository around the current directory."""
        root, commit = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
        if not root or not commit:
            return cls()
        clean = _git("status", "--porcelain") == ""
        return cls(True, clean, _git("remote", "get-url", "origin") or "", root, commit)


__all__ = ["GitStatus", "config_from_root"]
