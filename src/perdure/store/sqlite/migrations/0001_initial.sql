-- The first schema. `perdure.core.ground.model` explains the columns under the same names.

-- Facts about the store: a random id, and the boot of the machine behind all times since boot.
CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID, STRICT;

-- The columns for every write (token, status) come first, large columns come last: SQLite reads a row up to the last
-- needed column, and a large column in front would cost a walk through overflow pages each time.
CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    token       BLOB,
    status      TEXT    NOT NULL,
    worker      TEXT,
    crashes     INTEGER NOT NULL,
    mark        INTEGER NOT NULL,
    wake_at     INTEGER,
    wake_boot   INTEGER, -- counted from the boot that meta names
    result      INTEGER,
    created_at  INTEGER NOT NULL,
    started_at  INTEGER,
    ended_at    INTEGER,
    uid         BLOB    NOT NULL,
    inputs_hash BLOB    NOT NULL,
    name        TEXT    NOT NULL UNIQUE,
    task        TEXT    NOT NULL,
    target      TEXT    NOT NULL,
    reuse       TEXT,
    inputs      BLOB    NOT NULL,
    value       BLOB
) STRICT;

-- Started, unfinished runs: candidates for a call with the same inputs to continue.
CREATE INDEX runs_running ON runs (task, inputs_hash) WHERE status = 'RUNNING';

-- Runs without a driver, by the time at which they are due.
CREATE INDEX runs_due ON runs (task, wake_boot) WHERE status IN ('QUEUED', 'SLEEPING');

-- The rare statuses, so that listing by status costs a plain successful run nothing.
CREATE INDEX runs_rare ON runs (status) WHERE status NOT IN ('RUNNING', 'SUCCEEDED');

-- The journals: a row for each commit of a run, numbered by its last entry. `perdure.core.journal.segment` has the format.
CREATE TABLE segments (
    run    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    data   BLOB    NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID, STRICT;

-- The source snapshots of each journal, so that a snapshot without a journal can be removed.
CREATE TABLE run_sources (
    run    INTEGER NOT NULL,
    source INTEGER NOT NULL,
    PRIMARY KEY (run, source)
) WITHOUT ROWID, STRICT;

-- Started tasks, containers, sleeps and timeouts. The columns stand in the order of `Action`, so that tuples are bound
-- unchanged; `ended`, last, is 1 while the action has an outcome that counts.
CREATE TABLE actions (
    run       INTEGER NOT NULL,
    parent    INTEGER NOT NULL,
    action    INTEGER NOT NULL,
    branch    INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    occ       INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    fp        BLOB    NOT NULL,
    name      TEXT    NOT NULL,
    label     TEXT,
    inputs    BLOB,
    source    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    failures  INTEGER NOT NULL,
    wake_at   INTEGER,
    wake_boot INTEGER,
    boot      TEXT,
    begun     INTEGER NOT NULL,
    state     BLOB,
    ended     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, parent, action)
) WITHOUT ROWID, STRICT;

-- Actions without an outcome.
CREATE INDEX actions_open ON actions (run) WHERE ended = 0;

-- Snapshots of the code under which entries were written; `modules` is a JSON object, module name to base64 hash.
CREATE TABLE sources (
    id      INTEGER PRIMARY KEY,
    digest  BLOB NOT NULL UNIQUE,
    python  TEXT NOT NULL,
    modules TEXT NOT NULL
) STRICT;

-- Outcomes of cached tasks, shared by all runs.
CREATE TABLE cache (
    key   BLOB    NOT NULL PRIMARY KEY,
    value BLOB    NOT NULL,
    at    INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- The runs that have come from other stores, also those that have been removed since: none comes a second time (M3).
CREATE TABLE adopted (
    uid BLOB NOT NULL PRIMARY KEY
) WITHOUT ROWID, STRICT;

-- Workers, and the ends of their leases.
CREATE TABLE workers (
    id               TEXT    NOT NULL PRIMARY KEY,
    pid              INTEGER NOT NULL,
    host             TEXT    NOT NULL,
    boot             TEXT    NOT NULL,
    lease_until_boot INTEGER NOT NULL,
    started_at       INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- How far each schedule has been considered: every firing up to `at` has a run, or was skipped for good.
CREATE TABLE schedules (
    key TEXT    NOT NULL PRIMARY KEY,
    at  INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
