-- The outbox of events: what a program outside of the store is to be told about runs.

-- The receivers of events. Without a row no event is written. `kinds` are names with commas in between; `task` limits
-- the receiver to a task; `hook` is the task that is submitted; `filter` is JSON for the program that delivers.
CREATE TABLE perdure.subscriptions (
    name       text COLLATE "C" NOT NULL PRIMARY KEY,
    kinds      text   NOT NULL,
    task       text COLLATE "C",
    hook       text,
    filter     text   NOT NULL,
    created_at bigint NOT NULL
);

-- One event for one receiver. `cause` tells two events of a kind and a run apart; `status` and `detail` are those of the
-- moment of the event. Times are wall clock, microseconds.
CREATE TABLE perdure.notices (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription text COLLATE "C" NOT NULL,
    run          bigint  NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    cause        text COLLATE "C" NOT NULL,
    at           bigint  NOT NULL,
    status       text    NOT NULL,
    detail       bytea,
    state        integer NOT NULL DEFAULT 0,
    due          bigint  NOT NULL,
    token        bytea,
    attempts     integer NOT NULL DEFAULT 0,
    error        text
);

-- An event is written once for each receiver.
CREATE UNIQUE INDEX notices_once ON perdure.notices (run, kind, cause, subscription);

-- The events that are to be delivered, by the time of the next attempt.
CREATE INDEX notices_due ON perdure.notices (subscription, due) WHERE state = 0;

-- A failure is noted in the transaction that ends the run, by whichever statement ends the run.
CREATE FUNCTION perdure.note_failure() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO perdure.notices (subscription, run, kind, cause, at, status, detail, due)
    SELECT name, NEW.id, 'failure', NEW.ended_at::text, NEW.ended_at, NEW.status, NEW.value, NEW.ended_at
    FROM perdure.subscriptions
    WHERE strpos(kinds, 'failure') > 0 AND (task IS NULL OR task = NEW.task)
    ON CONFLICT DO NOTHING; RETURN NULL; END
$$;

CREATE TRIGGER runs_failed AFTER UPDATE OF status ON perdure.runs FOR EACH ROW
WHEN (NEW.status IN ('FAILED', 'ABORTED') AND OLD.status NOT IN ('FAILED', 'ABORTED'))
EXECUTE FUNCTION perdure.note_failure();
