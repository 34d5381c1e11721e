-- Values that runs publish.

-- The latest value of each name of a run.
CREATE TABLE published (
    run   INTEGER NOT NULL,
    name  TEXT    NOT NULL,
    value BLOB    NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) WITHOUT ROWID, STRICT;
