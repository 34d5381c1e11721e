-- Runs that are asked to cancel, and the tags of runs.

-- Why the run is to be cancelled; NULL for a run that nothing cancels.
ALTER TABLE runs ADD COLUMN cancel TEXT;

-- When the grace of the cancellation ends (wall clock, microseconds).
ALTER TABLE runs ADD COLUMN cancel_until INTEGER;

-- The tags of the run, as JSON; NULL for none.
ALTER TABLE runs ADD COLUMN tags TEXT;
