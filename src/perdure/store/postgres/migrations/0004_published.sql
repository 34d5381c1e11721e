-- Values that runs publish.

-- The latest value of each name of a run.
CREATE TABLE perdure.published (
    run   bigint NOT NULL,
    at    bigint NOT NULL,
    name  text   NOT NULL COLLATE "C",
    value bytea  NOT NULL,
    PRIMARY KEY (run, name)
) WITH (fillfactor = 50);
