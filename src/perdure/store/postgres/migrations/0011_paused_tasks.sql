-- Tasks that are paused on all runs.

-- Since when no worker may drive a run of the task (wall clock, microseconds).
CREATE TABLE perdure.paused_tasks (
    task  text COLLATE "C" NOT NULL PRIMARY KEY,
    since bigint NOT NULL
);
