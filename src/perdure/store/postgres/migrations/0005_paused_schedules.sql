-- Schedules that are paused, and the newest firing of each schedule.

-- Since when no firing of the schedule gets a run (wall clock, microseconds); NULL for a schedule that is not paused.
ALTER TABLE perdure.schedules ADD COLUMN paused bigint;

-- The newest firing that has a run, also where that run was removed since (wall clock, microseconds).
ALTER TABLE perdure.schedules ADD COLUMN fired bigint;
