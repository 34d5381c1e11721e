-- Why runs could not be driven.

-- The last refusal of a run that no process drives. `again` is when the worker tries again, `entries` the length of the
-- journal at the refusal.
CREATE TABLE perdure.refusals (
    run     bigint NOT NULL PRIMARY KEY,
    worker  text COLLATE "C" NOT NULL,
    error   text   NOT NULL,
    message text   NOT NULL,
    place   text   NOT NULL,
    at      bigint NOT NULL,
    again   bigint,
    tries   bigint NOT NULL,
    entries bigint NOT NULL
);
