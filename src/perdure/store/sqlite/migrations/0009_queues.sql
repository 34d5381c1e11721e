-- Queues: the limits of the runs that a worker may claim.

-- The queue that a run is taken from; NULL for a run that waits for no slot.
ALTER TABLE runs ADD COLUMN queue TEXT;

-- The key of the run in the queue.
ALTER TABLE runs ADD COLUMN key TEXT NOT NULL DEFAULT '';

-- Runs of a higher priority leave earlier.
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

-- The level of the lane in which the run waits; NULL for a run that is in no lane.
ALTER TABLE runs ADD COLUMN lane INTEGER;

-- The waiting runs of queues, by lanes.
CREATE INDEX runs_waiting ON runs (queue, task, key, lane, wake_at)
WHERE queue IS NOT NULL AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;

-- The slots in use: claimed runs of queues.
CREATE INDEX runs_held ON runs (queue, key, worker) WHERE queue IS NOT NULL AND token IS NOT NULL AND status = 'RUNNING';

-- The queues that code has declared. `declared` and `override` are `QueueSettings` as JSON.
CREATE TABLE queues (
    name     TEXT    NOT NULL PRIMARY KEY,
    declared TEXT    NOT NULL,
    override TEXT,
    paused   INTEGER,
    turn     INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID, STRICT;

-- The lanes of each queue with waiting runs. `store._queues` explains the columns.
CREATE TABLE lanes (
    queue TEXT    NOT NULL,
    task  TEXT    NOT NULL,
    key   TEXT    NOT NULL,
    level INTEGER NOT NULL,
    turn  INTEGER NOT NULL,
    PRIMARY KEY (queue, task, key, level)
) WITHOUT ROWID, STRICT;

-- The lanes in their order.
CREATE INDEX lanes_turn ON lanes (queue, task, turn, level, key);

-- The starts that count for the rate of a queue: time since boot, and wall clock for the time after a reboot.
CREATE TABLE starts (
    queue  TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    number INTEGER NOT NULL,
    wall   INTEGER NOT NULL,
    PRIMARY KEY (queue, at, number)
) WITHOUT ROWID, STRICT;
