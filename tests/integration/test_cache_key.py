"""`cache="auto"`: a cached outcome answers only a call whose outcome it must be.

Family: something that the outcome depends on is missing from the key. Each case is a program that runs two tasks, or
one task in two versions, and would get the same entry twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_HEAD = """
import functools, os
from dataclasses import dataclass
from enum import Enum
import perdure
env = perdure.TaskEnvironment(name="cached", cache="auto")
"""
_TAIL = """
@env.task(cache="disable")
def main() -> list:
    return [task(*arguments) for task, arguments in CALLS]

if __name__ == "__main__":
    print(perdure.run(main).result)
"""

_TWO = {
    "closure cells of one factory": (
        """
        def to(currency, rate):
            def convert(amount: float) -> float:
                return amount * rate
            return env.task(short_name=f"to_{currency}")(convert)
        CALLS = [(to("eur", 1.1), (10.0,)), (to("jpy", 160.0), (10.0,))]
        """,
        "[11.0, 1600.0]",
    ),
    "wrapper of functools.wraps": (
        """
        def times(factor):
            def decorate(fn):
                @functools.wraps(fn)
                def wrapper(n: int) -> int:
                    return factor * fn(n)
                return wrapper
            return decorate
        def one(n: int) -> int:
            return n
        CALLS = [(env.task(short_name=f"t{f}")(times(f)(one)), (5,)) for f in (2, 3)]
        """,
        "[10, 15]",
    ),
}


def _run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    (folder / "flow.py").write_text(_HEAD + textwrap.dedent(script) + _TAIL)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    return subprocess.run(
        [sys.executable, "flow.py"], cwd=folder, env=clean, capture_output=True, text=True, check=False, timeout=90
    )


@pytest.mark.parametrize("case", _TWO)
def test_two_tasks_never_share_an_entry(tmp_path: Path, case: str) -> None:
    script, expected = _TWO[case]
    done = _run(tmp_path, script)
    assert done.stdout == f"{expected}\n", done.stderr


_EDITED = {
    "keyword-only default": "@env.task\ndef step(n: int, *, add: int = {0}) -> int:\n    return n + add",
    "list default": "@env.task\ndef step(n: int, add: list[int] = [{0}]) -> int:\n    return n + add[0]",
    "tuple default": "@env.task\ndef step(n: int, add: tuple[int, ...] = ({0},)) -> int:\n    return n + add[0]",
    "enum default": (
        "class Add(Enum):\n    A = 1\n    B = 2\n"
        "@env.task\ndef step(n: int, add: Add = Add({0})) -> int:\n    return n + add.value"
    ),
    "value of an enum": (
        "class Add(Enum):\n    A = {0}\n@env.task\ndef step(n: int, add: Add = Add.A) -> int:\n    return n + add.value"
    ),
    "constant of the module": "ADD = {0}\n@env.task\ndef step(n: int) -> int:\n    return n + ADD",
    "constant in a container": "ADD = {{'a': [{0}]}}\n@env.task\ndef step(n: int) -> int:\n    return n + ADD['a'][0]",
    "helper function": (
        "def helper(n):\n    return n + {0}\n@env.task\ndef step(n: int) -> int:\n    return helper(n)"
    ),
    "helper of a helper": (
        "def inner(n):\n    return n + {0}\ndef helper(n):\n    return inner(n)\n"
        "@env.task\ndef step(n: int) -> int:\n    return helper(n)"
    ),
    "traced helper": (
        "@perdure.trace\ndef helper(n: int) -> int:\n    return n + {0}\n"
        "@env.task\ndef step(n: int) -> int:\n    return helper(n)"
    ),
    "cached helper": (
        "@functools.lru_cache\ndef helper(n):\n    return n + {0}\n"
        "@env.task\ndef step(n: int) -> int:\n    return helper(n)"
    ),
    "partial": "ADD = functools.partial(int, '{0}')\n@env.task\ndef step(n: int) -> int:\n    return n + ADD()",
    "method of a class": (
        "class Adder:\n    def add(self, n):\n        return n + {0}\n"
        "@env.task\ndef step(n: int) -> int:\n    return Adder().add(n)"
    ),
    "field default of a dataclass": (
        "@dataclass\nclass Adder:\n    by: int = {0}\n@env.task\ndef step(n: int) -> int:\n    return n + Adder().by"
    ),
    "object in the module": (
        "@dataclass\nclass Adder:\n    by: int\nADDER = Adder({0})\n"
        "@env.task\ndef step(n: int) -> int:\n    return n + ADDER.by"
    ),
    "function of another module": ("import other\n@env.task\ndef step(n: int) -> int:\n    return other.helper(n)"),
    "constant of another module": ("from other import ADD\n@env.task\ndef step(n: int) -> int:\n    return n + ADD"),
    "wrapped function": (
        "def same(fn):\n    @functools.wraps(fn)\n    def wrapper(n: int) -> int:\n        return fn(n)\n"
        "    return wrapper\n"
        "@env.task\n@same\ndef step(n: int) -> int:\n    return n + {0}"
    ),
}


@pytest.mark.parametrize("case", _EDITED)
def test_an_edit_that_the_outcome_depends_on_misses_the_cache(tmp_path: Path, case: str) -> None:
    for number in (1, 2):
        # Of other length, as Python tells an edited module by the second and the length.
        (tmp_path / "other.py").write_text(f"{'#' * number}\nADD = {number}\ndef helper(n):\n    return n + ADD\n")
        done = _run(tmp_path, _EDITED[case].format(number) + "\nCALLS = [(step, (10,))]\n")
        assert done.stdout == f"[{10 + number}]\n", done.stderr


_STABLE = {
    "comments and other functions": (
        "COUNT = open('count', 'a').write\n",
        "def unrelated():\n    return {0}\n@env.task\ndef step(n: int) -> int:\n    # {0}\n    mark()\n    return n",
    ),
    "sets, loggers, classes, recursion": (
        "",
        "import logging\nlog = logging.getLogger('x')\nKNOWN = {{'a', 'b', 'c', 'd'}}\n"
        "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n"
        "@env.task\ndef step(n: int) -> int:\n    log.info('x')\n    mark()\n    return even(n) + len(KNOWN)",
    ),
}


@pytest.mark.parametrize("case", _STABLE)
def test_the_same_code_hits_in_another_process(tmp_path: Path, case: str) -> None:
    _, script = _STABLE[case]
    mark = "def mark():\n    with open('marks', 'a') as file:\n        file.write('x')\n"
    for number in (1, 2):
        done = _run(tmp_path, mark + script.format(number) + "\nCALLS = [(step, (10,))]\n")
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "marks").read_text() == "x"


_UNHASHABLE = {
    "a lock": "import threading\nTHING = threading.Lock()",
    "an open file": "THING = open('flow.py')",
    "an object of a library's": "import random\nTHING = random.Random(1)",
    "a generator": "THING = (n for n in range(3))",
}


@pytest.mark.parametrize("case", _UNHASHABLE)
def test_code_that_reads_an_object_without_a_stable_form_is_refused_with_the_remedy(tmp_path: Path, case: str) -> None:
    task = "@env.task\ndef step(n: int) -> int:\n    return n if THING else 0\nCALLS = [(step, (1,))]\n"
    step = f"{_UNHASHABLE[case]}\n{task}"
    done = _run(tmp_path, step)
    assert 'task cached.step: cache="auto" cannot tell whether THING has changed' in done.stderr
    versioned = step.replace("@env.task\n", '@env.task(cache=perdure.Cache(version_override="1"))\n')
    assert _run(tmp_path, versioned).stdout == "[1]\n"


def test_the_name_of_a_file_is_not_content(tmp_path: Path) -> None:
    """Equal contents under temporary names hit, alone, in a list, in a dataclass, and as directories."""
    script = """
    import tempfile
    from perdure.io import Dir, File

    @dataclass
    class Box:
        file: File

    def new_file() -> File:
        path = tempfile.mktemp()
        open(path, "w").write("content")
        return File.from_local(path)

    def new_dir() -> Dir:
        path = tempfile.mkdtemp()
        open(path + "/a", "w").write("content")
        return Dir.from_local(path)

    def mark():
        with open("marks", "a") as file:
            file.write("x")

    @env.task
    def a(file: File) -> str:
        mark()
        return file.open("r").read()

    @env.task
    def b(files: list[File]) -> int:
        mark()
        return len(files)

    @env.task
    def c(box: Box) -> int:
        mark()
        return 1

    @env.task
    def d(folder: Dir) -> int:
        mark()
        return 1

    CALLS = [(a, (new_file(),)), (b, ([new_file()],)), (c, (Box(new_file()),)), (d, (new_dir(),))]
    """
    for _ in range(2):
        done = _run(tmp_path, script)
        assert done.stdout == "['content', 1, 1, 1]\n", done.stderr
    assert (tmp_path / "marks").read_text() == "xxxx"


@pytest.mark.parametrize("layout", ["DIRECT", "NAMED_DIR"])
def test_a_containers_outcome_depends_on_a_files_name_only_where_the_program_sees_the_name(layout: str) -> None:
    from perdure.extras import ContainerTask
    from perdure.io import File

    task = ContainerTask(
        name=f"count-{layout.lower().replace('_', '-')}", image="alpine:3.20", command=["wc", "{{.inputs.text}}"],
        inputs={"text": File}, outputs={"n": int}, file_input_layout=layout, cache="auto",  # type: ignore[arg-type]
    )  # fmt: skip
    one, other, third = (File(name=name, hash=char * 64, size=3) for name, char in (("a", "0"), ("b", "0"), ("a", "1")))
    assert (task.cache_identity({"text": one}) == task.cache_identity({"text": other})) == (layout == "DIRECT")
    assert task.cache_identity({"text": one}) != task.cache_identity({"text": third})
