-- Tasks that are paused on all runs.

-- Since when no worker may drive a run of the task (wall clock, microseconds).
CREATE TABLE paused_tasks (
    task  TEXT    NOT NULL PRIMARY KEY,
    since INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
