-- Streams that runs write.

-- The items of each stream of a run; `value` is NULL where the writer closed the stream.
CREATE TABLE perdure.streamed (
    run     bigint NOT NULL,
    number  bigint NOT NULL,
    attempt bigint NOT NULL,
    at      bigint NOT NULL,
    name    text   NOT NULL COLLATE "C",
    value   bytea,
    PRIMARY KEY (run, name, number)
);
