-- Runs that are asked to cancel, and the tags of runs.

-- Why the run is to be cancelled; NULL for a run that nothing cancels.
ALTER TABLE perdure.runs ADD COLUMN cancel text;

-- When the grace of the cancellation ends (wall clock, microseconds).
ALTER TABLE perdure.runs ADD COLUMN cancel_until bigint;

-- The tags of the run, as JSON; NULL for none.
ALTER TABLE perdure.runs ADD COLUMN tags text;
