-- Messages to runs, and parked runs that wait for messages.

DROP INDEX runs_due;

-- Runs without a driver, by the time at which they are due.
CREATE INDEX runs_due ON runs (task, wake_boot) WHERE status IN ('QUEUED', 'SLEEPING', 'WAITING');

-- The messages of each run in commit order. `taken` is the number of the entry that holds the message as an outcome.
CREATE TABLE messages (
    run    INTEGER NOT NULL,
    number INTEGER NOT NULL,
    taken  INTEGER,
    at     INTEGER NOT NULL,
    box    TEXT    NOT NULL,
    key    TEXT,
    value  BLOB    NOT NULL,
    PRIMARY KEY (run, number)
) WITHOUT ROWID, STRICT;

-- The messages that a call may take.
CREATE INDEX messages_untaken ON messages (run, box, number) WHERE taken IS NULL;

-- One message for each key of a run and box.
CREATE UNIQUE INDEX messages_keyed ON messages (run, box, key) WHERE key IS NOT NULL;

-- Waits for messages without an outcome: conditions (kind 10) and mailboxes (kind 11). The name of a wait is the box.
CREATE INDEX actions_waiting ON actions (run, name) WHERE ended = 0 AND kind IN (10, 11);
