-- Runs that are paused.

-- Since when no worker may drive the run (wall clock, microseconds); NULL for a run that is not paused.
ALTER TABLE perdure.runs ADD COLUMN paused bigint;

DROP INDEX perdure.runs_due;

-- Runs without a driver, by the time at which they are due. A paused run is never due.
CREATE INDEX runs_due ON perdure.runs (task, due, id)
    WHERE status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;
