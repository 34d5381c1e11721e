-- The outbox of events: what a program outside of the store is to be told about runs.

-- The receivers of events. Without a row no event is written. `kinds` are names with commas in between; `task` limits
-- the receiver to a task; `hook` is the task that is submitted; `filter` is JSON for the program that delivers.
CREATE TABLE subscriptions (
    name       TEXT    NOT NULL PRIMARY KEY,
    kinds      TEXT    NOT NULL,
    task       TEXT,
    hook       TEXT,
    filter     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- One event for one receiver. `cause` tells two events of a kind and a run apart; `status` and `detail` are those of the
-- moment of the event. Times are wall clock, microseconds.
CREATE TABLE notices (
    id           INTEGER PRIMARY KEY,
    subscription TEXT    NOT NULL,
    run          INTEGER NOT NULL,
    kind         TEXT    NOT NULL,
    cause        TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    status       TEXT    NOT NULL,
    detail       BLOB,
    state        INTEGER NOT NULL DEFAULT 0,
    due          INTEGER NOT NULL,
    token        BLOB,
    attempts     INTEGER NOT NULL DEFAULT 0,
    error        TEXT
) STRICT;

-- An event is written once for each receiver.
CREATE UNIQUE INDEX notices_once ON notices (run, kind, cause, subscription);

-- The events that are to be delivered, by the time of the next attempt.
CREATE INDEX notices_due ON notices (subscription, due) WHERE state = 0;

-- A failure is noted in the transaction that ends the run, by whichever statement ends the run.
CREATE TRIGGER runs_failed AFTER UPDATE OF status ON runs
WHEN NEW.status IN ('FAILED', 'ABORTED') AND OLD.status NOT IN ('FAILED', 'ABORTED')
BEGIN
    INSERT INTO notices (subscription, run, kind, cause, at, status, detail, due)
    SELECT name, NEW.id, 'failure', NEW.ended_at, NEW.ended_at, NEW.status, NEW.value, NEW.ended_at
    FROM subscriptions
    WHERE instr(kinds, 'failure') > 0 AND (task IS NULL OR task = NEW.task)
    ON CONFLICT DO NOTHING; END;
