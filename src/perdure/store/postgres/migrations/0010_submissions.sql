-- Submissions with a key or a time by which their run has to begin.

CREATE TABLE perdure.submissions (
    run      bigint NOT NULL PRIMARY KEY,
    task     text COLLATE "C" NOT NULL,
    key      text COLLATE "C",
    until    bigint,
    start_by bigint
);

-- The runs of a key.
CREATE INDEX submissions_key ON perdure.submissions (task, key, run) WHERE key IS NOT NULL;

-- The runs that have to begin by a time, until a worker has looked at them after that time.
CREATE INDEX submissions_start_by ON perdure.submissions (start_by) WHERE start_by IS NOT NULL;

-- The unfinished runs of a queue.
CREATE INDEX runs_unfinished ON perdure.runs (queue, key)
WHERE queue IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');
