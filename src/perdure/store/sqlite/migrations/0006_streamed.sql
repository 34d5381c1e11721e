-- Streams that runs write.

-- The items of each stream of a run; `value` is NULL where the writer closed the stream.
CREATE TABLE streamed (
    run     INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    value   BLOB,
    at      INTEGER NOT NULL,
    PRIMARY KEY (run, name, number)
) WITHOUT ROWID, STRICT;
