-- Messages to runs, and parked runs that wait for messages.

DROP INDEX perdure.runs_due;

-- Runs without a driver, by the time at which they are due.
CREATE INDEX runs_due ON perdure.runs (task, due, id) WHERE status IN ('QUEUED', 'SLEEPING', 'WAITING');

-- The messages of each run in commit order. `taken` is the number of the entry that holds the message as an outcome.
CREATE TABLE perdure.messages (
    run    bigint NOT NULL,
    number bigint NOT NULL,
    taken  bigint,
    at     bigint NOT NULL,
    box    text   NOT NULL COLLATE "C",
    key    text COLLATE "C",
    value  bytea  NOT NULL,
    PRIMARY KEY (run, number)
) WITH (fillfactor = 90);

-- The messages that a call may take.
CREATE INDEX messages_untaken ON perdure.messages (run, box, number) WHERE taken IS NULL;

-- One message for each key of a run and box.
CREATE UNIQUE INDEX messages_keyed ON perdure.messages (run, box, key) WHERE key IS NOT NULL;

-- Waits for messages without an outcome: conditions (kind 10) and mailboxes (kind 11). The name of a wait is the box.
CREATE INDEX actions_waiting ON perdure.actions (run, name) WHERE ended = 0 AND kind IN (10, 11);
