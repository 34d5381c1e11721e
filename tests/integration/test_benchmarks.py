"""The benchmarks' cases run, each with next to nothing to do. What they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.postgres_server import server

CASES = Path(__file__).resolve().parents[2] / "benchmarks" / "cases"


def case(directory: Path, script: str, *arguments: object) -> dict[str, object]:
    command = [sys.executable, str(CASES / script), *map(str, arguments)]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["figure"] > 0
    assert answer["unit"]
    return answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "words",
    [
        "fsync.py --count 5",
        "raw_insert.py --count 20",
        "raw_batch.py --count 20",
        "perdure_sequential.py --mode sync --count 20",
        "perdure_sequential.py --mode async --count 20",
        "perdure_gather.py --count 50",
        "perdure_empty.py --mode sequential --count 10",
        "perdure_empty.py --mode at-once --count 10",
        "perdure_lengths.py --count 2000",
        "import_time.py --count 1 --modules perdure",
        "perdure_messages.py --count 3 --runs 3",
        "perdure_workers.py --count 50 --workers 2",
        "perdure_queue.py --count 20",
        "perdure_queue.py --plain --count 20",
        "perdure_claims.py --count 100 --keys 10",
        "perdure_parked.py --count 100 --driven 20 --wakes 20 --over 0.5",
    ],
)
def test_a_case_gives_a_figure(tmp_path: Path, words: str) -> None:
    case(tmp_path, *words.split())


@pytest.mark.parametrize(
    "words",
    [
        "postgres_insert.py --count 20",
        "perdure_sequential.py --mode sync --count 20",
        "perdure_sequential.py --mode async --count 20",
        "perdure_gather.py --count 50",
        "perdure_messages.py --count 3 --runs 3",
    ],
)
def test_a_case_on_postgres_gives_a_figure_and_leaves_nothing(tmp_path: Path, words: str) -> None:
    databases = "SELECT count(*) FROM pg_database"
    before = server().execute(databases)
    case(tmp_path, *words.split(), "--postgres", server().dsn())
    assert server().execute(databases) == before


def test_the_cases_of_resuming_give_figures(tmp_path: Path) -> None:
    db = tmp_path / "run" / "perdure.db"
    case(tmp_path, "perdure_resume.py", "--stage", "build", "--mode", "sync", "--count", 50, "--db", db)
    case(tmp_path, "raw_scan.py", "--count", 50, "--db", db)
    case(tmp_path, "perdure_resume.py", "--stage", "resume", "--mode", "sync", "--count", 50, "--db", db)
