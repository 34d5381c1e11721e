"""P13: what a step in a database of the user's does, in every database, colour and library."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import StaticPool, create_engine, text
from tests.sql.conftest import Make

import perdure
from perdure.errors import UsageError

CASES = [
    ("postgres", "engine", "sync"), ("postgres", "engine", "async"),
    ("postgres", "sessions", "sync"), ("postgres", "sessions", "async"),
    ("postgres", "pool", "sync"), ("postgres", "connection", "sync"),
    ("postgres", "factory", "sync"), ("postgres", "factory", "async"),
    ("mariadb", "engine", "sync"), ("mariadb", "engine", "async"), ("mariadb", "sessions", "sync"),
    ("sqlite", "engine", "sync"), ("sqlite", "engine", "async"), ("sqlite", "sessions", "async"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "place", "colour"), CASES)
def test_a_step_commits_once_and_is_replayed_from_the_store(project: Make, kind: str, place: str, colour: str) -> None:
    """Family: a database, a library or a colour in which the effect and the outcome are not one commit. In the body of
    the run, in a child task, and side by side."""
    made = project(kind, place, colour)
    assert made.result("main") == [1, 10, 100]
    assert made.result("main") == [1, 10, 100]
    assert made.database.effects() == ["a", "b", "c"]
    assert made.database.outcomes() == 3


@pytest.mark.parametrize(("kind", "place", "colour"), [CASES[0], CASES[5], CASES[7], CASES[8], CASES[11]])
def test_a_failed_step_leaves_nothing_and_a_retry_executes_it_again(
    project: Make, kind: str, place: str, colour: str
) -> None:
    """TX3. Family: a part of a failed execution is there, or the failure hides a later success."""
    made = project(kind, place, colour)
    assert made.result("retried") == [1, 1]
    assert made.database.effects() == ["a", "b"]
    assert made.database.outcomes() == 2
    assert "ValueError: no a" in made.result("failing", "f")
    assert made.database.effects() == (["a", "b", "c"] if colour == "sync" else ["a", "b"])


@pytest.mark.parametrize(("kind", "place"), [("postgres", "engine"), ("postgres", "factory"), ("mariadb", "engine"),
                                             ("sqlite", "engine")])  # fmt: skip
def test_what_cannot_be_one_commit_is_refused_with_a_clear_error(project: Make, kind: str, place: str) -> None:
    """Family: an exception of the function; an outcome over the limit; a function that commits by itself."""
    made = project(kind, place)
    failed, large, commits = made.result("failing").split("\n")
    assert failed == "ValueError: no a"
    assert large.startswith("ValueTooLargeError")
    assert commits.startswith("UsageError: commits has ended its transaction")
    # The last of them has made its effect true by itself, which no library can take back.
    assert made.database.effects() == ["c"]
    assert made.database.outcomes() == 0


def test_a_step_inside_a_trace_is_refused(project: Make) -> None:
    assert "was called inside trace outer" in project("sqlite").result("within")


@pytest.mark.parametrize(("kind", "place", "colour"), [CASES[0], CASES[7], CASES[9], CASES[11]])
def test_prune_removes_what_no_run_can_ask_for(project: Make, kind: str, place: str, colour: str) -> None:
    """Family: a row that is removed although its run can go on. A failed run can be resumed; rows of another store are
    not known here."""
    made = project(kind, place, colour)
    made.result("main")
    assert "no b" in made.run("broken", "broken")["error"]
    assert made.database.outcomes() == 4
    assert made.result("prune") == 3
    assert made.result("prune") == 0
    made.store = str(made.directory / "other.db")
    assert made.result("prune") == 0
    assert made.database.outcomes() == 1


@pytest.mark.parametrize(
    ("database", "message"),
    [(3, "needs an engine or a sessionmaker"), (create_engine("sqlite://").connect(), "needs an engine")],
)
def test_other_objects_than_databases_are_refused(database: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):

        @perdure.transaction(database)
        def step(connection: Any) -> None: ...


def test_functions_that_cannot_be_steps_are_refused() -> None:
    """Family: no parameter for the connection, a method, a generator, the other colour."""
    engine = create_engine("sqlite://")
    with pytest.raises(UsageError, match="passes a connection as the first argument"):

        @perdure.transaction(engine)
        def nothing() -> None: ...

    with pytest.raises(UsageError, match="passes a connection as the first argument"):

        class Account:
            @perdure.transaction(engine)
            def add(self, connection: Any) -> None: ...

    with pytest.raises(UsageError, match="is a generator"):

        @perdure.transaction(engine)
        def items(connection: Any) -> Any:
            yield 1

    with pytest.raises(UsageError, match="Engine needs a function defined with def"):

        @perdure.transaction(engine)  # type: ignore[arg-type]
        async def other(connection: Any) -> None: ...


def test_outside_of_a_run_a_step_is_its_function_in_a_transaction() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)

    @perdure.transaction(engine)
    def make(connection: Any, rows: int) -> int:
        connection.execute(text("CREATE TABLE IF NOT EXISTS t (n)"))
        for n in range(rows):
            connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})
        if rows > 2:
            raise ValueError("too many")
        return connection.execute(text("SELECT count(*) FROM t")).scalar_one()

    assert make(2) == 2
    with pytest.raises(ValueError, match="too many"):
        make(3)
    assert make(0) == 2
