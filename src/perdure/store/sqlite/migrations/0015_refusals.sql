-- Why runs could not be driven.

-- The last refusal of a run that no process drives. `again` is when the worker tries again, `entries` the length of the
-- journal at the refusal.
CREATE TABLE refusals (
    run     INTEGER NOT NULL PRIMARY KEY,
    worker  TEXT    NOT NULL,
    error   TEXT    NOT NULL,
    message TEXT    NOT NULL,
    place   TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    again   INTEGER,
    tries   INTEGER NOT NULL,
    entries INTEGER NOT NULL
) STRICT;
