"""Source snapshots (docs/development/replay.md#look-up, P6): what counts as changed code."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from perdure.core.ground.model import Source
from perdure.core.journal.source import PYTHON, changed, code_root, hash_file, logical_name


def hashed(folder: Path, text: str, name: str = "job.py") -> bytes:
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return hash_file(str(file))


def test_comments_blank_lines_and_formatting_do_not_count(tmp_path: Path) -> None:
    assert hashed(tmp_path, "def f(x):\n    return x + 1\n") == hashed(
        tmp_path, "# a\n\ndef f( x ):\n\n    return (x+1)  # b\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x + 2\n",
        "def g(x):\n    return x + 1\n",
        "LIMIT = 3\ndef f(x):\n    return x + 1\n",
        "def f(x):\n    return sorted(x + 1)\n",
    ],
)
def test_code_names_and_constants_count(tmp_path: Path, text: str) -> None:
    assert hashed(tmp_path, "def f(x):\n    return x + 1\n") != hashed(tmp_path, text)


def test_the_hash_is_the_same_under_another_file_name(tmp_path: Path) -> None:
    text = "def f(x):\n    return x in {'a', 'b', 'c'}\n"
    assert hashed(tmp_path, text) == hashed(tmp_path, text, "other.py")


def snapshot(modules: dict[str, bytes], python: str = PYTHON) -> Source:
    return Source(repr((sorted(modules.items()), python)).encode(), python, modules)


def test_a_module_that_only_one_side_had_imported_tells_nothing() -> None:
    assert not changed(snapshot({"a": b"1"}), snapshot({"a": b"1", "lazy": b"2"}))
    assert not changed(snapshot({"a": b"1", "lazy": b"2"}), snapshot({"a": b"1"}))


def test_a_changed_module_or_another_python_counts() -> None:
    assert changed(snapshot({"a": b"1"}), snapshot({"a": b"2"}))
    assert changed(snapshot({"a": b"1"}, "3.10"), snapshot({"a": b"1"}))


def test_logical_names_follow_packages_and_never_say_main(tmp_path: Path) -> None:
    package = tmp_path / "pkg" / "sub"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "mod.py").touch()
    (tmp_path / "script.py").touch()
    assert logical_name(str(package / "mod.py")) == "pkg.sub.mod"
    assert logical_name(str(package / "__init__.py")) == "pkg.sub"
    assert code_root(str(package / "mod.py")) == str(tmp_path)
    assert logical_name(str(tmp_path / "script.py")) == "script"
    assert logical_name(str(sys.modules[__name__].__file__)) != "__main__"
