-- Submissions with a key or a time by which their run has to begin.

CREATE TABLE submissions (
    run      INTEGER NOT NULL PRIMARY KEY,
    task     TEXT    NOT NULL,
    key      TEXT,
    until    INTEGER,
    start_by INTEGER
) STRICT;

-- The runs of a key.
CREATE INDEX submissions_key ON submissions (task, key, run) WHERE key IS NOT NULL;

-- The runs that have to begin by a time, until a worker has looked at them after that time.
CREATE INDEX submissions_start_by ON submissions (start_by) WHERE start_by IS NOT NULL;

-- The unfinished runs of a queue.
CREATE INDEX runs_unfinished ON runs (queue, key)
WHERE queue IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');
