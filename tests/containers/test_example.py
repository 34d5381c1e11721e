"""`examples/word_counts.py` as it is printed, with a smaller text: it survives a SIGKILL, and its counts are right."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.containers.engines import Engine

import perdure

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "examples" / "word_counts.py"
MEGABYTES, PARTS = 2, 4


def begin(engine: Engine, directory: Path, image: str) -> subprocess.Popen[str]:
    """The command line of the example's first lines."""
    environ = {
        **os.environ, **engine.environ(), "WORDS_IMAGE": image, "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(Path(perdure.__file__).parents[1]),
    }  # fmt: skip
    sizes = ["--megabytes", str(MEGABYTES), "--parts", str(PARTS), "--at_once", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "perdure", "run", str(EXAMPLE), "main", "--name", "words", *sizes, "--json"],
        cwd=directory, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def die_after(process: subprocess.Popen[str], line: str) -> list[str]:
    """Kill it when it shows that line; all that it has shown."""
    assert process.stderr is not None
    shown = []
    for text in process.stderr:
        shown.append(text)
        if line in text:
            process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "".join(shown)
    return shown


def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("word_counts", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "word_counts", example)
    spec.loader.exec_module(example)
    return example


@pytest.mark.parametrize("programs", ["busybox", "of this system"])
def test_word_counts_survive_a_kill(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: str
) -> None:
    image = engine.image
    if programs != "busybox":
        image = "perdure-test/tools:1"
        tools = ["sh", "awk", "sort", "tr", "cat", "wc", "ls", "mkdir", "tar", "gzip"]
        packed = subprocess.run([PROJECT / "examples" / "image_of.sh", *tools], stdout=subprocess.PIPE, check=True)
        (tmp_path / "tools.tar").write_bytes(packed.stdout)
        engine.import_image(tmp_path / "tools.tar", image)

    shown = die_after(begin(engine, tmp_path, image), "[count]")
    assert any("[split]" in line for line in shown)
    out, err = (process := begin(engine, tmp_path, image)).communicate(timeout=60)
    assert process.returncode == 0, err
    assert "[split]" not in err  # it had its outcome
    assert json.loads(out)["result"]["words"] > 0

    monkeypatch.chdir(tmp_path)
    example = imported(monkeypatch)
    with example.write_text(MEGABYTES, 1).open("r") as stream:
        words = Counter(re.findall("[a-z]+", stream.read().lower()))
    ranking = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    # The run is over, so this reads its outcome, and wants neither an engine nor an image.
    run = perdure.with_runcontext(name="words").run(example.main, megabytes=MEGABYTES, parts=PARTS, at_once=2, seed=1)
    report = run.result
    assert report.words == words.total()
    assert report.distinct == len(words)
    assert report.most_frequent == ranking[:10]
    with report.counts.open("r") as stream:
        assert stream.read().splitlines() == [f"{word} {times}" for word, times in ranking]
    with report.archive.open() as stream, tarfile.open(fileobj=stream, mode="r:gz") as tar:
        names = {name for name in tar.getnames() if name.startswith("parts/")}
        assert names == {f"parts/{part:03d}" for part in range(PARTS)}

    assert engine.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []
    assert os.listdir(tmp_path / ".perdure" / "perdure.db-containers") == []
    assert list(tmp_path.glob("words-*.txt")) == []
