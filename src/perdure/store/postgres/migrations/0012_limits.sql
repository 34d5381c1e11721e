-- Limits of calls: which limits there are, the tickets of the calls that wait or hold a slot, and what rates count.

-- The limits that code has declared. `declared` and `override` are `LimitSettings` as JSON; `ticket` is the number of the
-- newest ticket, `uses` the number of the newest use.
CREATE TABLE perdure.limits (
    name     text COLLATE "C" NOT NULL PRIMARY KEY,
    declared text   NOT NULL,
    override text,
    ticket   bigint NOT NULL DEFAULT 0,
    uses     bigint NOT NULL DEFAULT 0
);

-- The calls that wait for a slot of a limit or hold one. `store._limits` explains the columns.
CREATE TABLE perdure.tickets (
    name   text COLLATE "C" NOT NULL,
    number bigint  NOT NULL,
    run    bigint  NOT NULL,
    token  bytea   NOT NULL,
    place  bytea   NOT NULL,
    task   text COLLATE "C" NOT NULL,
    cost   bigint  NOT NULL,
    state  integer NOT NULL,
    since  bigint  NOT NULL,
    at     bigint  NOT NULL DEFAULT 0,
    used   bigint,
    PRIMARY KEY (name, number)
);

-- The tickets of a run.
CREATE INDEX tickets_of_run ON perdure.tickets (run, name, place);

-- The tickets of a limit in their order.
CREATE INDEX tickets_in_state ON perdure.tickets (name, state, number);

-- The tickets of parked runs, by the tasks that a worker may serve.
CREATE INDEX tickets_parked ON perdure.tickets (name, task, number) WHERE state = 1;

-- The tickets that hold a slot.
CREATE INDEX tickets_held ON perdure.tickets (run) WHERE state = 2;

-- What the rates of a limit count, on this server's clock.
CREATE TABLE perdure.uses (
    name   text COLLATE "C" NOT NULL,
    at     bigint NOT NULL,
    number bigint NOT NULL,
    cost   bigint NOT NULL,
    PRIMARY KEY (name, at, number)
);

-- The use that a call reports the cost of.
CREATE UNIQUE INDEX uses_number ON perdure.uses (name, number);
