-- Lists of the runs of a task.

-- Runs by task, newest first, so that a list of a rare task does not read the whole table.
CREATE INDEX runs_task ON runs (task);
