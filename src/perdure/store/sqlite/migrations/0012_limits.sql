-- Limits of calls: which limits there are, the tickets of the calls that wait or hold a slot, and what rates count.

-- The limits that code has declared. `declared` and `override` are `LimitSettings` as JSON; `ticket` is the number of the
-- newest ticket, `uses` the number of the newest use.
CREATE TABLE limits (
    name     TEXT    NOT NULL PRIMARY KEY,
    declared TEXT    NOT NULL,
    override TEXT,
    ticket   INTEGER NOT NULL DEFAULT 0,
    uses     INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID, STRICT;

-- The calls that wait for a slot of a limit or hold one. `store._limits` explains the columns.
CREATE TABLE tickets (
    name   TEXT    NOT NULL,
    number INTEGER NOT NULL,
    run    INTEGER NOT NULL,
    token  BLOB    NOT NULL,
    place  BLOB    NOT NULL,
    task   TEXT    NOT NULL,
    cost   INTEGER NOT NULL,
    state  INTEGER NOT NULL,
    since  INTEGER NOT NULL,
    at     INTEGER NOT NULL DEFAULT 0,
    used   INTEGER,
    PRIMARY KEY (name, number)
) WITHOUT ROWID, STRICT;

-- The tickets of a run.
CREATE INDEX tickets_of_run ON tickets (run, name, place);

-- The tickets of a limit in their order.
CREATE INDEX tickets_in_state ON tickets (name, state, number);

-- The tickets of parked runs, by the tasks that a worker may serve.
CREATE INDEX tickets_parked ON tickets (name, task, number) WHERE state = 1;

-- The tickets that hold a slot.
CREATE INDEX tickets_held ON tickets (run) WHERE state = 2;

-- What the rates of a limit count: time since boot, and wall clock for the time after a reboot.
CREATE TABLE uses (
    name   TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    number INTEGER NOT NULL,
    cost   INTEGER NOT NULL,
    wall   INTEGER NOT NULL,
    PRIMARY KEY (name, at, number)
) WITHOUT ROWID, STRICT;

-- The use that a call reports the cost of.
CREATE UNIQUE INDEX uses_number ON uses (name, number);
