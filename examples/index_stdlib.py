"""Index the Python standard library's own source files: real work on input that every machine has.

Every file is measured by a trace (lines, functions, classes, nesting, complexity, share of comments), a batch of files
at a time; between batches the run rests for `pause` seconds in a durable sleep, as a client of a rate-limited service
would. A child task then sums up each top-level package, and a report is written.

    perdure run examples/index_stdlib.py main --name stdlib --limit 240 --batch 40 --pause 2

Kill it at any moment and type the same line again: files that were measured are not measured again, and a sleep ends
when it would have ended. `make demo` does that before your eyes.
"""

from __future__ import annotations

import ast
import asyncio
import io
import os
import sys
import sysconfig
import time
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import perdure
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="index")

SKIP = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.match_case)
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


@dataclass
class FileMetrics:
    """What one source file is made of; `error` says why it could not be read as Python."""

    path: str
    lines: int = 0
    functions: int = 0
    classes: int = 0
    nesting: int = 0
    complexity: int = 0
    comment_share: float = 0.0
    error: str = ""


@dataclass
class PackageSummary:
    package: str
    files: int
    lines: int
    functions: int
    classes: int
    deepest: int
    complexity_per_function: float
    comment_share: float
    hardest_file: str


@dataclass
class Report:
    files: int
    unreadable: int
    packages: int
    lines: int
    functions: int
    started_at: float
    finished_at: str
    text: str


# ------------------------------------------------------------------------------------------- plain Python: the metrics


def nesting(tree: ast.AST) -> int:
    """How many blocks deep the deepest statement stands; an `elif` is no deeper than its `if`."""
    deepest, todo = 0, [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        inner = depth + isinstance(node, BLOCKS)
        deepest = max(deepest, inner)
        elifs = node.orelse if isinstance(node, ast.If) and len(node.orelse) == 1 else []
        for child in ast.iter_child_nodes(node):
            todo.append((child, depth if child in elifs and isinstance(child, ast.If) else inner))
    return deepest


def measure(root: str, path: str) -> FileMetrics:
    data = (Path(root) / path).read_bytes()
    metrics = FileMetrics(path=path, lines=data.count(b"\n"))
    try:
        tree = ast.parse(data)
        comments = sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(io.BytesIO(data).readline))
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        metrics.error = f"{type(error).__name__}: {error}"
        return metrics
    for node in ast.walk(tree):
        metrics.functions += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        metrics.classes += isinstance(node, ast.ClassDef)
        metrics.complexity += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            metrics.complexity += len(node.values) - 1
    metrics.complexity += metrics.functions
    metrics.nesting = nesting(tree)
    metrics.comment_share = comments / max(metrics.lines, 1)
    return metrics


def package_of(path: str) -> str:
    first, _, rest = path.partition("/")
    return first if rest else "(single modules)"


@contextmanager
def logged(step: str) -> Iterator[None]:  # perdure: ignore
    """Note an executed step outside of perdure's own records: one line, one write. `make demo` counts them."""
    began = time.time()  # noqa: TID251 - plain time, not durable time: it tells when a step really ran
    yield
    if path := os.environ.get("INDEX_LOG"):
        line = f"{began:.3f} {time.time():.3f} {os.getpid()} {step}\n"  # noqa: TID251
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


# ------------------------------------------------------------------------------------- durable: each is recorded once


@perdure.trace
async def find_sources(root: str, limit: int) -> list[str]:
    """The files to index. What a directory holds may change between two tries, so the listing is recorded too."""
    with logged("list sources"):
        found = []
        for directory, names, files in os.walk(root):
            names[:] = [name for name in names if name not in SKIP and not name.startswith(".")]
            found += [Path(directory, file).relative_to(root).as_posix() for file in files if file.endswith(".py")]
        found.sort()
        if 0 < limit < len(found):  # spread over the whole library, not its first letters
            found = [found[index * len(found) // limit] for index in range(limit)]
        return found


@perdure.trace
async def index_file(root: str, path: str) -> FileMetrics:
    with logged(f"file {path}"):
        return await asyncio.to_thread(measure, root, path)


@perdure.trace
async def write_report(path: str, text: str) -> str:
    """Beside it first, then in its place: a reader never sees half a report."""
    with logged("report"):
        target = Path(path)
        partial = target.with_name(f"{target.name}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
        return path


# ----------------------------------------------------------------------------------------------------------- the tasks


@env.task(retries=2)
async def summarise(package: str, files: list[FileMetrics]) -> PackageSummary:
    """A child task of its own in the run's tree, with its own attempts."""
    with logged(f"package {package}"):
        functions = sum(file.functions for file in files)
        return PackageSummary(
            package=package,
            files=len(files),
            lines=sum(file.lines for file in files),
            functions=functions,
            classes=sum(file.classes for file in files),
            deepest=max(file.nesting for file in files),
            complexity_per_function=sum(file.complexity for file in files) / max(functions, 1),
            comment_share=sum(file.comment_share * file.lines for file in files) / max(sum(f.lines for f in files), 1),
            hardest_file=max(files, key=lambda file: (file.complexity, file.path)).path,
        )


def render(packages: list[PackageSummary], files: list[FileMetrics], started: float, finished: str) -> str:
    lines = [
        f"Python {sys.version_info.major}.{sys.version_info.minor} standard library: {len(files)} files,"
        f" {sum(file.lines for file in files):,} lines",
        f"started {started:.3f} (durable_time), finished {finished} (durable.now)",
        "",
        "package              files    lines  functions  classes  deepest  cplx/fn  comments  hardest file",
    ]
    lines += [
        f"{p.package:<20}{p.files:>6}{p.lines:>9,}{p.functions:>11,}{p.classes:>9,}{p.deepest:>9}"
        f"{p.complexity_per_function:>9.1f}{p.comment_share:>10.1%}  {p.hardest_file}"
        for p in sorted(packages, key=lambda p: (-p.lines, p.package))
    ]
    lines += [f"unreadable: {file.path}: {file.error}" for file in files if file.error]
    return "\n".join(lines) + "\n"


@env.task
async def main(
    root: str = "", limit: int = 240, batch: int = 40, pause: float = 2.0, report: str = "index-report.txt"
) -> Report:
    """Index `limit` files (0: all) under `root` (the standard library), `batch` at a time, and write `report`."""
    if batch < 1:
        raise perdure.errors.NonRecoverableError("batch must be at least 1")
    started = await durable_time.aio()
    root = root or sysconfig.get_path("stdlib")
    paths = await find_sources(root, limit)

    files: list[FileMetrics] = []
    for first in range(0, len(paths), batch):
        if first:
            await durable_sleep.aio(pause)
        with perdure.group(f"batch {first // batch + 1}"):
            files += await asyncio.gather(*(index_file(root, path) for path in paths[first : first + batch]))

    by_package: dict[str, list[FileMetrics]] = {}
    for file in files:
        by_package.setdefault(package_of(file.path), []).append(file)
    packages = await asyncio.gather(*(summarise(name, members) for name, members in by_package.items()))

    finished = (await perdure.durable.now.aio()).isoformat(timespec="milliseconds")
    text = render(packages, files, started, finished)
    await write_report(report, text)
    return Report(
        files=len(files),
        unreadable=sum(bool(file.error) for file in files),
        packages=len(packages),
        lines=sum(file.lines for file in files),
        functions=sum(file.functions for file in files),
        started_at=started,
        finished_at=finished,
        text=text,
    )


if __name__ == "__main__":
    print(perdure.run(main).outputs()[0].text)
