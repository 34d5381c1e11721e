-- Queues: the limits of the runs that a worker may claim.

-- The queue that a run is taken from; NULL for a run that waits for no slot.
ALTER TABLE perdure.runs ADD COLUMN queue text COLLATE "C";

-- The key of the run in the queue.
ALTER TABLE perdure.runs ADD COLUMN key text COLLATE "C" NOT NULL DEFAULT '';

-- Runs of a higher priority leave earlier.
ALTER TABLE perdure.runs ADD COLUMN priority bigint NOT NULL DEFAULT 0;

-- The level of the lane in which the run waits; NULL for a run that is in no lane.
ALTER TABLE perdure.runs ADD COLUMN lane bigint;

-- The waiting runs of queues, by lanes.
CREATE INDEX runs_waiting ON perdure.runs (queue, task, key, lane, wake_at, id)
WHERE queue IS NOT NULL AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;

-- The slots in use: claimed runs of queues.
CREATE INDEX runs_held ON perdure.runs (queue, key, worker) WHERE queue IS NOT NULL AND token IS NOT NULL AND status = 'RUNNING';

-- The queues that code has declared. `declared` and `override` are `QueueSettings` as JSON.
CREATE TABLE perdure.queues (
    name     text COLLATE "C"    NOT NULL PRIMARY KEY,
    declared text    NOT NULL,
    override text,
    paused   bigint,
    turn     bigint NOT NULL DEFAULT 0
);

-- The lanes of each queue with waiting runs. `store._queues` explains the columns.
CREATE TABLE perdure.lanes (
    queue text COLLATE "C"    NOT NULL,
    task  text COLLATE "C"    NOT NULL,
    key   text COLLATE "C"    NOT NULL,
    level bigint NOT NULL,
    turn  bigint NOT NULL,
    PRIMARY KEY (queue, task, key, level)
);

-- The lanes in their order.
CREATE INDEX lanes_turn ON perdure.lanes (queue, task, turn, level, key);

-- The starts that count for the rate of a queue, on this server's clock.
CREATE TABLE perdure.starts (
    queue  text COLLATE "C"    NOT NULL,
    at     bigint NOT NULL,
    number bigint NOT NULL,
    PRIMARY KEY (queue, at, number)
);
