-- Runs that are paused.

-- Since when no worker may drive the run (wall clock, microseconds); NULL for a run that is not paused.
ALTER TABLE runs ADD COLUMN paused INTEGER;

DROP INDEX runs_due;

-- Runs without a driver, by the time at which they are due. A paused run is never due.
CREATE INDEX runs_due ON runs (task, wake_boot)
    WHERE status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;
