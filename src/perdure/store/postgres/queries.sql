-- All statements of the Postgres store, without those of its sessions. Parameters are bound in the order of their marks:
-- the order of the records in `perdure.core.ground.model`. `perdure` stands for the schema of the store.

-- name: schema_there
-- Whether the schema exists, whether the schema holds a store, and whether the schema holds other tables.
SELECT to_regclass('perdure.meta') IS NOT NULL,
       EXISTS (SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s);

-- name: set_meta
-- Change a fact about the store.
INSERT INTO perdure.meta (key, value) VALUES (%s, %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: meta
-- Facts about the store.
SELECT key, value FROM perdure.meta;

-- name: now
-- The time of the clock.
SELECT perdure.now_us();

-- name: insert_run
-- Submit a run; no row is inserted when the name is taken, nor for a claim of a run whose task is paused. The name is
-- looked up first, since a conflict would use up a number. The parameters behind the wake time are the time until the
-- run is due, if the run is queued, and once more the name, the token and the task.
INSERT INTO perdure.runs (uid, name, task, target, inputs, inputs_hash, created_at, reuse, tags, queue, key,
                          priority, carried, status, token, worker, started_at, crashes, mark, wake_at, due)
SELECT %s, %s, %s, %s, %s, %s, %s::bigint, %s, %s, %s, %s, %s::bigint, %s, %s, %s::bytea, %s, %s::bigint, %s::bigint, 0, %s::bigint,
       perdure.now_us() + %s::bigint
WHERE NOT EXISTS (SELECT 1 FROM perdure.runs WHERE name = %s)
  AND (%s::bytea IS NULL OR NOT EXISTS (SELECT 1 FROM perdure.paused_tasks WHERE task = %s))
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: is_created
-- Whether the run is stored by this very submission. The number was given out once, also if the transaction was rolled
-- back; another run of the same name and uid may come from a move of the same runs, or be left from an earlier move.
SELECT 1 FROM perdure.runs WHERE id = %s AND uid = %s;

-- name: insert_segment_fenced
-- Append one segment, if the claim still holds: fence and row in one statement, the fast path of a sequential body. The
-- statement locks the row of the run: a later claim waits, and an earlier claim is seen.
WITH held AS (
    SELECT id FROM perdure.runs WHERE id = %s AND token = %s AND status = 'RUNNING' FOR NO KEY UPDATE
)
INSERT INTO perdure.segments (run, number, data) SELECT id, %s, %s FROM held;

-- name: held
-- Lock these runs, in a fixed order, so that no claim changes before the commit; their tokens.
SELECT id, token FROM perdure.runs WHERE id = ANY(%s) AND status = 'RUNNING' ORDER BY id FOR NO KEY UPDATE;

-- name: hold
-- As `held`, and the transaction fails (division by zero) unless all runs have these tokens: so that no statement waits for
-- the answer of this one.
SELECT 1 / (count(*) = %s)::int FROM (
    SELECT runs.id FROM perdure.runs AS runs
    JOIN unnest(%s::bigint[], %s::bytea[]) AS held (id, token) ON runs.id = held.id AND runs.token = held.token
    WHERE runs.status = 'RUNNING' ORDER BY runs.id FOR NO KEY UPDATE OF runs
) AS locked;

-- name: insert_segment
-- Append a segment inside a transaction that has checked the fence.
INSERT INTO perdure.segments (run, number, data) VALUES (%s, %s, %s);

-- name: note_source
-- Note that the journal of a run refers to a source snapshot.
INSERT INTO perdure.run_sources (run, source) VALUES (%s, %s) ON CONFLICT DO NOTHING;

-- name: end_action
-- Note whether an action has an outcome that counts.
UPDATE perdure.actions SET ended = %s WHERE run = %s AND parent = %s AND action = %s;

-- name: is_segment
-- Whether the very segment is stored. The mark of the claim in the segment excludes other drivers.
SELECT 1 FROM perdure.segments WHERE run = %s AND number = %s AND data = %s;

-- name: insert_action
-- Record a started action inside a transaction that has checked the fence.
INSERT INTO perdure.actions (run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
                             wake_boot, boot, begun, state)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: is_action
-- Whether the very action is stored.
SELECT 1 FROM perdure.actions WHERE run = %s AND parent = %s AND action = %s AND at = %s AND fp = %s;

-- name: update_action
-- Set the changing fields of an action.
UPDATE perdure.actions SET attempt = %s, failures = %s, wake_at = %s, wake_boot = %s, boot = %s, state = %s
WHERE run = %s AND parent = %s AND action = %s;

-- name: put_cache
-- Keep a cached outcome; the last put wins.
INSERT INTO perdure.cache (key, value, at) VALUES (%s, %s, %s)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at;

-- name: finish
-- End a run and clear the claim, if the claim still holds. The mark later shows whether the end of the journal is
-- there.
UPDATE perdure.runs AS ended SET status = %s, result = %s, value = %s, ended_at = %s, token = NULL, worker = NULL, paused = NULL,
    crashes = 0, mark =
    coalesce((SELECT number FROM perdure.segments WHERE run = ended.id ORDER BY number DESC LIMIT 1), 0)
WHERE id = %s AND token = %s AND status = 'RUNNING';

-- name: is_finished
-- Whether a run has ended with exactly this outcome.
SELECT 1 FROM perdure.runs WHERE status = %s AND result = %s AND value = %s AND ended_at = %s AND id = %s;

-- name: claimable
-- A run, locked until the transaction ends.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE id = %s AND status <> 'REMOVED' FOR NO KEY UPDATE;

-- name: claim
-- Claim a run; the caller has compared token and status under the row's lock.
UPDATE perdure.runs SET token = %s, worker = %s, status = 'RUNNING', result = NULL, value = NULL, ended_at = NULL,
                        started_at = %s, crashes = %s, mark = %s, wake_at = NULL, due = NULL, paused = NULL, lane = NULL
WHERE id = %s;

-- name: claimed_with
-- The number of runs under one of several tokens.
SELECT count(*) FROM perdure.runs WHERE id = ANY(%s) AND token = ANY(%s);

-- name: park
-- Let a run leave memory until the wake time, given as a time from now, and clear the claim, if the claim still holds. A
-- run whose driver has not heard of the request to cancel the run is due now.
UPDATE perdure.runs SET status = %s, token = NULL, worker = NULL, crashes = 0, mark = %s, wake_at = %s,
                        due = perdure.now_us() + CASE WHEN cancel IS NULL OR %s THEN %s::bigint ELSE 0 END
WHERE id = %s AND token = %s AND status = 'RUNNING';

-- name: is_parked
-- Whether a run is parked exactly so, and no longer under the token; no row if the run has gone on.
SELECT token IS NULL FROM perdure.runs
WHERE id = %s AND (token = %s OR (status = %s AND token IS NULL AND mark = %s AND wake_at <= %s));

-- name: take_due
-- Due runs of these tasks, the longest due first; locked, and without runs that other workers have locked for the same
-- purpose.
SELECT run.*
FROM unnest(%s::text[]) AS wanted (task), LATERAL (
    SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
           result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried, due
    FROM perdure.runs AS due_run
    WHERE due_run.task = wanted.task AND status IN ('QUEUED', 'SLEEPING', 'WAITING')
      AND paused IS NULL AND due <= (SELECT perdure.now_us())
      AND NOT EXISTS (SELECT 1 FROM perdure.paused_tasks AS held WHERE held.task = wanted.task)
    ORDER BY due, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
) AS run
ORDER BY run.due, run.id LIMIT %s;

-- name: next_due
-- In how many microseconds the first run of these tasks is due, the time, and the queues in which runs of these tasks
-- wait.
SELECT min(first.due) - perdure.now_us(), perdure.now_us(), (
    SELECT array_agg(name) FROM perdure.queues
    WHERE EXISTS (
        SELECT 1 FROM unnest(%s::text[]) AS served (task), LATERAL (
            SELECT 1 FROM perdure.lanes WHERE queue = name AND lanes.task = served.task ORDER BY turn LIMIT 1
        ) AS lane
    )
)
FROM unnest(%s::text[]) AS wanted (task), LATERAL (
    SELECT due FROM perdure.runs AS due_run
    WHERE due_run.task = wanted.task AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL
      AND NOT EXISTS (SELECT 1 FROM perdure.paused_tasks AS held WHERE held.task = wanted.task)
    ORDER BY due LIMIT 1
) AS first;

-- name: release
-- Give a claim back.
UPDATE perdure.runs SET token = NULL, worker = NULL, crashes = 0 WHERE id = %s AND token = %s AND status = 'RUNNING';

-- name: is_released
-- Whether a run is under another token, or under none.
SELECT 1 FROM perdure.runs WHERE id = %s AND token IS DISTINCT FROM %s;

-- name: put_refusal
-- Note why a process could not drive a run that it has just let go of.
INSERT INTO perdure.refusals AS old (run, worker, error, message, place, at, again, tries, entries)
VALUES (%s, %s, %s, %s, %s, %s, %s, 1, coalesce((SELECT max(number) FROM perdure.segments WHERE run = %s), 0))
ON CONFLICT (run) DO UPDATE SET
    worker = excluded.worker, error = excluded.error, message = excluded.message, place = excluded.place,
    at = excluded.at, again = excluded.again, entries = excluded.entries,
    tries = CASE WHEN old.entries = excluded.entries THEN old.tries + 1 ELSE 1 END;

-- name: refusal
-- Why the last process that tried could not drive a run, unless the run has a claim or has recorded something since.
SELECT refusals.worker, error, message, place, at, again, tries, entries
FROM perdure.refusals AS refusals JOIN perdure.runs AS runs ON runs.id = refusals.run
WHERE refusals.run = %s AND runs.token IS NULL AND runs.status = 'RUNNING'
  AND entries = coalesce((SELECT max(number) FROM perdure.segments AS one WHERE one.run = refusals.run), 0);

-- name: purge_refusal
-- Why a run could not be driven counts no more.
DELETE FROM perdure.refusals WHERE run = %s;

-- name: move_code
-- The code of a run is elsewhere from now on.
UPDATE perdure.runs SET target = %s WHERE id = %s AND token = %s AND status = 'RUNNING';

-- name: abort
-- End an unfinished run, also under the claim of a worker.
UPDATE perdure.runs SET status = 'ABORTED', token = NULL, worker = NULL, ended_at = %s, wake_at = NULL, due = NULL,
                        paused = NULL
WHERE id = %s AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: cancel
-- Ask to cancel an unfinished run. A queued run is over at once, a parked run is due now.
UPDATE perdure.runs SET cancel = coalesce(cancel, %s), cancel_until = least(cancel_until, %s::bigint),
    ended_at = CASE status WHEN 'QUEUED' THEN %s::bigint END,
    result = CASE status WHEN 'QUEUED' THEN 2 END,
    wake_at = CASE WHEN status IN ('SLEEPING', 'WAITING') THEN least(wake_at, %s::bigint) END,
    due = CASE WHEN status IN ('SLEEPING', 'WAITING') THEN least(due, perdure.now_us()) END,
    paused = NULL,
    status = CASE status WHEN 'QUEUED' THEN 'CANCELLED' ELSE status END
WHERE id = %s AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: is_cancelling
-- Whether a run was asked to cancel.
SELECT 1 FROM perdure.runs WHERE id = %s AND cancel IS NOT NULL;

-- name: pause
-- Pause an unfinished run, unless the run was asked to cancel. A pause that holds already counts.
UPDATE perdure.runs SET paused = coalesce(paused, %s::bigint)
WHERE id = %s AND cancel IS NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: is_paused
-- Whether a run is paused.
SELECT 1 FROM perdure.runs WHERE id = %s AND paused IS NOT NULL;

-- name: unpause
-- End the pause of a run. A run that was in a lane of a queue is due, and enters the queue again.
UPDATE perdure.runs SET paused = NULL, due = CASE WHEN lane IS NULL THEN due ELSE 0 END
WHERE id = %s AND paused IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: is_unpaused
-- Whether a run is not paused.
SELECT 1 FROM perdure.runs WHERE id = %s AND paused IS NULL;

-- name: pause_task
-- Pause a task, unless the task is paused.
INSERT INTO perdure.paused_tasks (task, since) VALUES (%s, %s) ON CONFLICT (task) DO NOTHING;

-- name: resume_task
-- End the pause of a task.
DELETE FROM perdure.paused_tasks WHERE task = %s;

-- name: paused_tasks
-- The paused tasks, and since when.
SELECT task, since FROM perdure.paused_tasks ORDER BY task;

-- name: is_task_paused
-- Whether a task is paused.
SELECT 1 FROM perdure.paused_tasks WHERE task = %s;

-- name: readers_of_paused_tasks
-- The transactions of stores that have looked which tasks are paused: a lock stays until the end of the transaction.
SELECT DISTINCT lock.virtualtransaction
FROM pg_locks AS lock JOIN pg_stat_activity AS session ON session.pid = lock.pid
WHERE lock.locktype = 'relation' AND lock.relation = to_regclass('perdure.paused_tasks')
  AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND session.application_name = current_setting('application_name');

-- name: end_cancelled
-- End an unfinished run that was asked to cancel, also under the claim of a worker.
UPDATE perdure.runs SET status = 'CANCELLED', result = 2, token = NULL, worker = NULL, ended_at = %s, wake_at = NULL,
                        due = NULL, paused = NULL
WHERE id = %s AND cancel IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: is_cancelled
-- Whether a run was cancelled at a time.
SELECT 1 FROM perdure.runs WHERE ended_at = %s AND id = %s AND status = 'CANCELLED';

-- name: wake
-- Make a run without a driver due now.
UPDATE perdure.runs SET wake_at = least(wake_at, %s), due = least(due, perdure.now_us())
WHERE id = %s AND status IN ('QUEUED', 'SLEEPING', 'WAITING');

-- name: is_woken
-- Whether a run without a driver is due.
SELECT 1 FROM perdure.runs WHERE id = %s AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND due <= perdure.now_us();

-- name: is_aborted
-- Whether a run was aborted at a time.
SELECT 1 FROM perdure.runs WHERE ended_at = %s AND id = %s AND status = 'ABORTED';

-- name: run_by_name
-- The run with the name.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE name = %s;

-- name: run_by_id
-- The run with the number.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE id = %s AND status <> 'REMOVED';

-- name: runs_all
-- All runs, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE status <> 'REMOVED' AND id < %s ORDER BY id DESC LIMIT %s;

-- name: runs_running
-- Runs that are RUNNING, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE status = 'RUNNING' AND id < %s ORDER BY id DESC LIMIT %s;

-- name: runs_succeeded
-- SUCCEEDED runs, newest first. Most runs succeed, so the table is read from the end.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE status = 'SUCCEEDED' AND id < %s ORDER BY id DESC LIMIT %s;

-- name: runs_rare
-- Runs of any other status, newest first; the second condition enables the partial index.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE status = %s AND status NOT IN ('RUNNING', 'SUCCEEDED') AND id < %s
ORDER BY id DESC LIMIT %s;

-- name: runs_all_of_task
-- All runs of a task, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE task = %s AND status <> 'REMOVED' AND id < %s ORDER BY id DESC LIMIT %s;

-- name: runs_running_of_task
-- RUNNING runs of a task, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE status = 'RUNNING' AND task = %s AND id < %s ORDER BY id DESC LIMIT %s;

-- name: runs_succeeded_of_task
-- SUCCEEDED runs of a task, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE task = %s AND status = 'SUCCEEDED' AND id < %s ORDER BY id DESC LIMIT %s;

-- name: runs_rare_of_task
-- Runs of a task and of any other status, newest first; the second condition enables the partial index.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE status = %s AND status NOT IN ('RUNNING', 'SUCCEEDED') AND task = %s AND id < %s
ORDER BY id DESC LIMIT %s;

-- name: counts
-- The number of runs of each status.
SELECT status, count(*) FROM perdure.runs WHERE status <> 'REMOVED' GROUP BY status;

-- name: similar
-- Unfinished runs of a task and inputs, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE task = %s AND inputs_hash = %s AND status = 'RUNNING' ORDER BY id DESC;

-- name: abandoned
-- RUNNING runs of these tasks without a claim of one of these workers; a run that is paused, or whose task is paused,
-- only with a claim.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs
WHERE status = 'RUNNING' AND task = ANY(%s) AND (worker IS NULL OR worker <> ALL(%s))
      AND (token IS NOT NULL
           OR (paused IS NULL AND NOT EXISTS (SELECT 1 FROM perdure.paused_tasks AS held WHERE held.task = runs.task)))
ORDER BY id LIMIT %s;

-- name: version
-- Changes whenever a transaction that wrote has ended, on this whole server; reads no table.
SELECT hashtextextended(pg_current_snapshot()::text, 0);

-- name: journal_length
-- The number of the last entry of a run.
SELECT coalesce((SELECT number FROM perdure.segments WHERE run = %s ORDER BY number DESC LIMIT 1), 0);

-- name: last_action
-- The highest action number of a run: leaps from parent to parent in the primary key to the last action of each.
WITH RECURSIVE family (run, parent) AS (
    (SELECT run, parent FROM perdure.actions WHERE run = %s ORDER BY parent LIMIT 1)
    UNION ALL
    SELECT run, (SELECT min(a.parent) FROM perdure.actions AS a WHERE a.run = family.run AND a.parent > family.parent)
    FROM family WHERE parent IS NOT NULL
)
SELECT coalesce(
    max((SELECT max(a.action) FROM perdure.actions AS a WHERE a.run = family.run AND a.parent = family.parent)), 0
)
FROM family WHERE parent IS NOT NULL;

-- name: segments_of_run
-- One page of a journal, in order.
SELECT run, number, data FROM perdure.segments WHERE run = %s AND number > %s ORDER BY number LIMIT %s;

-- name: segments_numbered
-- Segments of a run by number, in order.
SELECT run, number, data FROM perdure.segments WHERE run = %s AND number = ANY(%s) ORDER BY number;

-- name: segments_ahead
-- The journals of several runs, each in order.
SELECT run, number, data FROM perdure.segments WHERE run = ANY(%s) ORDER BY run, number;

-- name: actions_ahead
-- The root tasks of several runs, and the actions of their bodies.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM perdure.actions WHERE run = ANY(%s) AND parent IN (-1, 0) ORDER BY run, action;

-- name: actions_of_parent
-- The actions of one body, in order of their number.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM perdure.actions WHERE run = %s AND parent = %s ORDER BY action;

-- name: actions_of_run
-- All actions of a run, in order of number.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM perdure.actions WHERE run = %s ORDER BY action;

-- name: open_actions
-- The actions of a run without an outcome, in order of their number.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM perdure.actions WHERE run = %s AND ended = 0 ORDER BY action;

-- name: source_id
-- The number of a snapshot.
SELECT id FROM perdure.sources WHERE digest = %s;

-- name: insert_source
-- Keep a snapshot, unless another process was faster.
INSERT INTO perdure.sources (digest, python, modules) VALUES (%s, %s, %s) ON CONFLICT (digest) DO NOTHING;

-- name: source
-- The snapshot with the number.
SELECT digest, python, modules FROM perdure.sources WHERE id = %s;

-- name: cache_get
-- A cached outcome.
SELECT value FROM perdure.cache WHERE key = %s;

-- name: renew
-- Insert or update the row of a worker. Need not be on disk at once: after an outage of the server an older lease
-- expires.
WITH hurry AS (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO perdure.workers (id, pid, host, boot, lease_until, started_at, serves, locked)
SELECT %s, %s, %s, %s, perdure.now_us() + %s::bigint, %s::bigint, %s, %s FROM hurry
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, host = excluded.host, boot = excluded.boot,
                               lease_until = excluded.lease_until, started_at = excluded.started_at,
                               serves = excluded.serves, locked = excluded.locked;

-- name: mark_locked
-- Say that a worker holds its advisory lock; the worker's row may not be there yet.
UPDATE perdure.workers SET locked = true WHERE id = %s AND NOT locked;

-- name: worker
-- A worker's row, and how long its claims still hold.
SELECT id, pid, host, boot, lease_until - perdure.now_us(), started_at, serves FROM perdure.workers WHERE id = %s;

-- name: workers
-- All workers.
SELECT id, pid, host, boot, lease_until - perdure.now_us(), started_at, serves FROM perdure.workers;

-- name: forget
-- Remove a worker's row.
DELETE FROM perdure.workers WHERE id = %s;

-- name: lock_of
-- Whether a session holds the advisory lock of a worker, and whether the worker takes such a lock.
SELECT EXISTS (
           SELECT 1 FROM pg_locks
           WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND classid::bigint = %s AND objid::bigint = %s AND objsubid = 1
       ),
       NOT EXISTS (SELECT 1 FROM perdure.workers WHERE id = %s AND NOT locked);

-- name: end_silent
-- End the sessions that keep a lock in this store and have made the server wait for their next message (or their
-- readiness to receive) for so many seconds, or for so many more if no other session waits for them; a process id and
-- an address for each. A person who reads the tables holds no such lock, and a person who changes them by hand has
-- another application's name.
SELECT pid, coalesce(host(client_addr), '') FROM (
  SELECT a.pid, a.client_addr FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.application_name = current_setting('application_name')
    AND a.wait_event_type = 'Client' AND a.state <> 'idle'
    AND a.state_change < clock_timestamp() - make_interval(secs => %s)
    AND EXISTS (SELECT 1 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                WHERE l.pid = a.pid AND l.mode <> 'AccessShareLock' AND c.relnamespace = to_regnamespace(%s))
    AND (a.state_change < clock_timestamp() - make_interval(secs => %s)
         OR EXISTS (SELECT 1 FROM pg_locks w WHERE NOT w.granted AND a.pid = ANY(pg_blocking_pids(w.pid))))
  OFFSET 0  -- first find, then end
) AS silent
WHERE pg_terminate_backend(pid);

-- name: ended
-- Finished runs that ended before a time, by number.
SELECT id, uid, name, status, ended_at FROM perdure.runs
WHERE id > %s AND status = ANY(%s) AND ended_at < %s ORDER BY id LIMIT %s;

-- name: reused
-- The runs that an unfinished run is to reuse. Two queries, each with its index.
SELECT reuse FROM perdure.runs WHERE status = 'RUNNING' AND reuse IS NOT NULL
UNION
SELECT reuse FROM perdure.runs
WHERE status = 'QUEUED' AND status NOT IN ('RUNNING', 'SUCCEEDED') AND reuse IS NOT NULL;

-- name: end_of_run
-- The facts that `remove` checks again, locked.
SELECT name, status, ended_at FROM perdure.runs WHERE id = %s FOR UPDATE;

-- name: remove
-- Take a run out of sight at once, with any number of rows. The row stays until the others are gone; its name cannot be
-- given to a run.
UPDATE perdure.runs SET status = 'REMOVED', name = chr(1) || id, inputs = '', value = NULL, reuse = NULL WHERE id = %s;

-- name: removed
-- A removed run with rows left, not under removal by another session.
SELECT id FROM perdure.runs WHERE status = 'REMOVED' AND status NOT IN ('RUNNING', 'SUCCEEDED')
LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: purge_segments
-- Some segments of a removed run.
DELETE FROM perdure.segments WHERE (run, number) IN (
    SELECT run, number FROM perdure.segments WHERE run = %s ORDER BY number LIMIT %s
);

-- name: purge_sources
-- The source references of a removed run.
DELETE FROM perdure.run_sources WHERE run = %s;

-- name: purge_actions
-- Some actions of a removed run.
DELETE FROM perdure.actions WHERE (run, parent, action) IN (
    SELECT run, parent, action FROM perdure.actions WHERE run = %s ORDER BY parent, action LIMIT %s
);

-- name: purge_run
-- The last row of a removed run.
DELETE FROM perdure.runs WHERE id = %s AND status = 'REMOVED';

-- name: uids
-- The uids of all runs.
SELECT uid FROM perdure.runs WHERE status <> 'REMOVED';

-- name: claimed_since
-- For each worker with claims, the first start of a claimed run.
SELECT worker, min(coalesce(started_at, created_at)) FROM perdure.runs
WHERE status = 'RUNNING' AND token IS NOT NULL GROUP BY worker;

-- name: stored_runs
-- One page of the values of runs.
SELECT id, inputs, value FROM perdure.runs WHERE id > %s ORDER BY id LIMIT %s;

-- name: stored_segments
-- One page of segments, long enough for a reference to a file.
SELECT run, number, data FROM perdure.segments
WHERE (run, number) > (%s, %s) AND octet_length(data) >= 32 ORDER BY run, number LIMIT %s;

-- name: stored_actions
-- One page of values of actions, long enough for a reference to a file.
SELECT run, parent, action, inputs, state FROM perdure.actions
WHERE (run, parent, action) > (%s, %s, %s) AND (octet_length(inputs) >= 32 OR octet_length(state) >= 32)
ORDER BY run, parent, action LIMIT %s;

-- name: stored_cache
-- One page of the cached values.
SELECT key, value FROM perdure.cache WHERE key > %s ORDER BY key LIMIT %s;

-- name: cached
-- Cached outcomes from before a time.
SELECT key, value, at FROM perdure.cache WHERE at < %s LIMIT %s;

-- name: uncache
-- Remove a cached outcome, unless put again.
DELETE FROM perdure.cache WHERE key = %s AND at < %s;

-- name: unused_sources
-- Snapshots without a reference from a row. Reads the rows of all actions.
SELECT id FROM perdure.sources
WHERE id NOT IN (SELECT source FROM perdure.run_sources UNION SELECT source FROM perdure.actions);

-- name: recent_sources
-- Snapshots that runs refer to, written since a time: of runs that have not ended, or ended after the time.
SELECT source FROM perdure.run_sources WHERE run IN (SELECT id FROM perdure.runs WHERE ended_at IS NULL OR ended_at >= %s)
UNION
SELECT source FROM perdure.actions WHERE run IN (SELECT id FROM perdure.runs WHERE ended_at IS NULL OR ended_at >= %s);

-- name: drop_source
-- Remove a snapshot.
DELETE FROM perdure.sources WHERE id = %s;

-- name: lock_workers
-- No process becomes a worker until this transaction ends.
LOCK TABLE perdure.workers IN EXCLUSIVE MODE;

-- name: receiver
-- The run of a message, locked until the transaction ends, so that no commit of the run comes in between.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE id = %s AND status <> 'REMOVED' FOR NO KEY UPDATE;

-- name: send_running
-- Store a message for a run that a worker drives; the number of the message. Such a run needs no wake: the lock on the row
-- keeps a park out until the commit, and the park then sees the message. The statement sees what was committed when it
-- began: if another sender has taken the number or the key since, nothing is stored, as for any other run.
WITH receiver AS MATERIALIZED (
    SELECT id FROM perdure.runs WHERE id = %s AND status = 'RUNNING' FOR NO KEY UPDATE
)
INSERT INTO perdure.messages (run, number, box, key, value, at)
SELECT receiver.id, 1 + coalesce((
    SELECT earlier.number FROM perdure.messages AS earlier WHERE earlier.run = receiver.id ORDER BY number DESC LIMIT 1
), 0), %s, %s, %s, %s FROM receiver
ON CONFLICT DO NOTHING RETURNING number;

-- name: is_sent
-- The number of the message that a lost `send_running` has stored: two senders of equal messages in one microsecond cannot
-- be told apart.
SELECT number FROM perdure.messages
WHERE run = %s AND box = %s AND key IS NOT DISTINCT FROM %s AND value = %s AND at = %s ORDER BY number DESC LIMIT 1;

-- name: message_keyed
-- The message of a run and box with the key.
SELECT number, box, key, value, at, taken FROM perdure.messages WHERE run = %s AND box = %s AND key = %s;

-- name: last_message
-- The highest number of a message of the run.
SELECT coalesce((SELECT number FROM perdure.messages WHERE run = %s ORDER BY number DESC LIMIT 1), 0);

-- name: insert_message
-- Store a message.
INSERT INTO perdure.messages (run, number, box, key, value, at, taken) VALUES (%s, %s, %s, %s, %s, %s, %s);

-- name: is_message
-- Whether the message was stored by this very send.
SELECT 1 FROM perdure.messages WHERE run = %s AND number = %s AND box = %s AND value = %s AND at = %s;

-- name: take_message
-- Note the entry that takes a message, or (NULL) that the message is given back. The first entry counts.
UPDATE perdure.messages SET taken = CASE WHEN %s::bigint IS NULL THEN NULL ELSE coalesce(taken, %s::bigint) END
WHERE run = %s AND number = %s;

-- name: wake_for_message
-- Let a parked run be due now if an open wait of the run has an untaken message.
UPDATE perdure.runs AS parked SET wake_at = least(wake_at, %s), due = least(due, perdure.now_us())
WHERE id = %s AND status IN ('SLEEPING', 'WAITING') AND EXISTS (
    SELECT 1 FROM perdure.actions AS wait
    WHERE wait.run = parked.id AND wait.ended = 0 AND wait.kind IN (10, 11) AND EXISTS (
        SELECT 1 FROM perdure.messages AS message
        WHERE message.run = wait.run AND message.box = wait.name AND message.taken IS NULL
    )
);

-- name: messages
-- One page of all messages of a run.
SELECT number, box, key, value, at, taken FROM perdure.messages
WHERE run = %s AND number > %s ORDER BY number LIMIT %s;

-- name: messages_of_box
-- One page of the untaken messages of a box.
SELECT number, box, key, value, at, taken FROM perdure.messages
WHERE run = %s AND box = %s AND number > %s AND taken IS NULL ORDER BY number LIMIT %s;

-- name: addressee
-- The run with the name, and its first open wait for the box.
SELECT runs.id, wait.run IS NOT NULL, wait.inputs
FROM perdure.runs AS runs LEFT JOIN perdure.actions AS wait
  ON wait.run = runs.id AND wait.name = %s AND wait.ended = 0 AND wait.kind IN (10, 11)
WHERE runs.name = %s ORDER BY wait.action LIMIT 1;

-- name: news
-- The first untaken message of each of the given runs and boxes above a number.
SELECT wanted.run, message.number, message.box, message.key, message.value, message.at, message.taken
FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS wanted (run, box, above)
CROSS JOIN LATERAL (
    SELECT number, box, key, value, at, taken FROM perdure.messages
    WHERE run = wanted.run AND box = wanted.box AND number > wanted.above AND taken IS NULL ORDER BY number LIMIT 1
) AS message;

-- name: open_waits
-- The waits for messages of unfinished runs, without waits in bodies that have ended.
SELECT runs.name, wait.run, wait.parent, wait.action, wait.branch, wait.seq, wait.occ, wait.kind, wait.fp, wait.name,
       wait.label, wait.inputs, wait.source, wait.at, wait.attempt, wait.failures, wait.wake_at, wait.wake_boot,
       wait.boot, wait.begun, wait.state
FROM perdure.actions AS wait JOIN perdure.runs AS runs ON runs.id = wait.run
WHERE wait.ended = 0 AND wait.kind IN (10, 11) AND runs.status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING')
  AND NOT EXISTS (
      SELECT 1 FROM perdure.actions AS body
      WHERE body.run = wait.run AND body.action = wait.parent AND body.ended = 1
  )
ORDER BY wait.run, wait.action;

-- name: unread
-- The untaken messages of unfinished runs, counted.
SELECT runs.name, message.box, count(*), min(message.at)
FROM perdure.messages AS message JOIN perdure.runs AS runs ON runs.id = message.run
WHERE message.taken IS NULL AND runs.status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING')
GROUP BY message.run, runs.name, message.box ORDER BY message.run, message.box;

-- name: purge_messages
-- Some messages of a removed run.
DELETE FROM perdure.messages WHERE (run, number) IN (
    SELECT run, number FROM perdure.messages WHERE run = %s ORDER BY number LIMIT %s
);

-- name: publish
-- Replace the latest value of a name of a run.
INSERT INTO perdure.published (run, name, value, at) VALUES (%s, %s, %s, %s)
ON CONFLICT (run, name) DO UPDATE SET value = excluded.value, at = excluded.at;

-- name: published
-- The latest values of a run.
SELECT name, value, at FROM perdure.published WHERE run = %s ORDER BY name;

-- name: purge_published
-- Some published values of a removed run.
DELETE FROM perdure.published WHERE (run, name) IN (
    SELECT run, name FROM perdure.published WHERE run = %s ORDER BY name LIMIT %s
);

-- name: stored_published
-- One page of published values, long enough for a reference to a file.
SELECT run, name, value FROM perdure.published
WHERE (run, name) > (%s, %s) AND length(value) >= 32 ORDER BY run, name LIMIT %s;

-- name: stream
-- Add an item to a stream, under the next number.
INSERT INTO perdure.streamed (run, name, attempt, value, at, number)
SELECT %s::bigint, %s::text, %s::bigint, %s::bytea, %s::bigint, coalesce(
    (SELECT number FROM perdure.streamed WHERE run = %s AND name = %s ORDER BY number DESC LIMIT 1), 0
) + 1;

-- name: streamed
-- One page of the items of a stream: so many items, and no item behind so many bytes. The last number comes first, from the
-- lengths alone, so that no value is read that is not in the page.
SELECT name, number, attempt, value, at FROM perdure.streamed
WHERE run = %s AND name = %s AND number > %s AND number <= (
    SELECT max(number) FROM (
        SELECT number, sum(coalesce(length(value), 0)) OVER (
            ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
        FROM perdure.streamed WHERE run = %s AND name = %s AND number > %s ORDER BY number LIMIT %s
    ) AS sizes WHERE before IS NULL OR before < %s
) ORDER BY number;

-- name: last_streamed
-- The last item of a stream.
SELECT name, number, attempt, value, at FROM perdure.streamed
WHERE run = %s AND name = %s ORDER BY number DESC LIMIT 1;

-- name: streamed_of_run
-- One page of the items of all streams of a run.
SELECT name, number, attempt, value, at FROM perdure.streamed
WHERE run = %s AND (name, number) > (%s, %s) ORDER BY name, number LIMIT %s;

-- name: purge_streamed
-- Some items of a removed run.
DELETE FROM perdure.streamed WHERE (run, name, number) IN (
    SELECT run, name, number FROM perdure.streamed WHERE run = %s ORDER BY name, number LIMIT %s
);

-- name: stored_streamed
-- One page of items of streams, long enough for a reference to a file.
SELECT run, name, number, value FROM perdure.streamed
WHERE (run, name, number) > (%s, %s, %s) AND length(value) >= 32 ORDER BY run, name, number LIMIT %s;

-- name: stored_messages
-- One page of the values of messages, long enough for a reference to a file.
SELECT run, number, value FROM perdure.messages
WHERE (run, number) > (%s, %s) AND octet_length(value) >= 32 ORDER BY run, number LIMIT %s;

-- name: schedule
-- One schedule.
SELECT key, at, paused, fired FROM perdure.schedules WHERE key = %s;

-- name: begin_schedule
-- Begin an unknown schedule, paused like the others of the name; no row is inserted when another process was faster.
INSERT INTO perdure.schedules (key, at, paused)
VALUES (%s, %s, (SELECT max(paused) FROM perdure.schedules WHERE split_part(key, ' ', 1) = %s))
ON CONFLICT (key) DO NOTHING;

-- name: advance_schedule
-- Move a schedule on from the expected position, unless the schedule is paused.
UPDATE perdure.schedules SET at = %s, fired = coalesce(%s::bigint, fired)
WHERE key = %s AND at = %s AND at < %s AND paused IS NULL;

-- name: pause_schedules
-- Pause the schedules of a name.
UPDATE perdure.schedules SET paused = %s WHERE split_part(key, ' ', 1) = %s AND paused IS NULL;

-- name: resume_schedules
-- End the pause of the schedules of a name, and leave out what fell into the pause.
UPDATE perdure.schedules SET paused = NULL, at = greatest(at, %s)
WHERE split_part(key, ' ', 1) = %s AND paused IS NOT NULL;

-- name: adopt_schedule
-- Store a schedule that another store had.
INSERT INTO perdure.schedules (key, at, paused, fired) VALUES (%s, %s, %s, %s)
ON CONFLICT (key) DO NOTHING;

-- name: schedules
-- All schedules.
SELECT key, at, paused, fired FROM perdure.schedules ORDER BY key COLLATE "C";

-- name: movable
-- A run that may go to another store, locked until the transaction ends.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE id = %s AND status <> 'REMOVED' FOR NO KEY UPDATE;

-- name: move
-- Release a run for another store. The wake time stays; only the index of due runs drops the run.
UPDATE perdure.runs SET status = 'MOVED', worker = %s, due = NULL WHERE id = %s;

-- name: is_moved
-- Whether a run was released for a store.
SELECT 1 FROM perdure.runs WHERE id = %s AND status = 'MOVED' AND worker = %s;

-- name: arrived
-- Note that the other store has a run.
UPDATE perdure.runs SET token = %s WHERE id = %s AND status = 'MOVED';

-- name: take_back
-- Undo the release. The wake time is given as a time from now.
UPDATE perdure.runs SET status = %s, token = NULL, worker = NULL, due = perdure.now_us() + %s::bigint
WHERE id = %s AND status = 'MOVED';

-- name: adopt_run
-- Store a run from another store; no row is inserted when the name is taken. The last parameter is the time until the
-- run is due, if the run waits.
INSERT INTO perdure.runs (uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, started_at, ended_at,
                          result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority,
                          carried, due)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::bigint, %s::bigint, %s::bigint, %s, %s, %s, %s::bigint, %s,
        %s::bigint, %s, %s::bigint, %s, %s, %s, %s, perdure.now_us() + %s::bigint)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: was_adopted
-- Whether a run of another store has come here before.
SELECT 1 FROM perdure.adopted WHERE uid = %s;

-- name: note_adopted
-- Keep in mind that a run of another store has come here.
INSERT INTO perdure.adopted (uid) VALUES (%s) ON CONFLICT (uid) DO NOTHING;

-- name: server
-- The facts about the server that matter to the promises: version, and settings that would break them.
SELECT current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('synchronous_standby_names'), pg_is_in_recovery(), current_setting('max_connections');

-- name: queue
-- A queue.
SELECT name, declared, override, paused, turn FROM perdure.queues WHERE name = %s;

-- name: lock_queue
-- A queue, for a transaction that claims runs of the queue.
SELECT name, declared, override, paused, turn FROM perdure.queues WHERE name = %s FOR UPDATE;

-- name: queues
-- All queues.
SELECT name, declared, override, paused, turn FROM perdure.queues ORDER BY name;

-- name: queues_of
-- The queues in which runs of these tasks wait. The first lane of each queue and task alone is looked up: a plain EXISTS
-- reads all lanes for a hash join.
SELECT name, declared, override, paused, turn FROM perdure.queues
WHERE EXISTS (
    SELECT 1 FROM unnest(%s::text[]) AS wanted (task), LATERAL (
        SELECT 1 FROM perdure.lanes WHERE queue = name AND lanes.task = wanted.task ORDER BY turn LIMIT 1
    ) AS first
) ORDER BY name;

-- name: declare_queue
-- Store the settings of a queue in the code; no row is written where they are known.
INSERT INTO perdure.queues (name, declared)
SELECT %s::text, %s::text WHERE NOT EXISTS (SELECT 1 FROM perdure.queues WHERE name = %s::text AND declared = %s::text)
ON CONFLICT (name) DO UPDATE SET declared = excluded.declared;

-- name: ensure_queue
-- A queue without limits, for runs whose queue no code has declared in this store.
INSERT INTO perdure.queues (name, declared) VALUES (%s, '{}') ON CONFLICT (name) DO NOTHING;

-- name: override_queue
-- Change the settings of an operator.
UPDATE perdure.queues SET override = %s WHERE name = %s;

-- name: pause_queue
-- Pause a queue that is not paused.
UPDATE perdure.queues SET paused = %s WHERE name = %s AND paused IS NULL;

-- name: resume_queue
-- End the pause of a queue.
UPDATE perdure.queues SET paused = NULL WHERE name = %s AND paused IS NOT NULL;

-- name: set_queue_turn
-- Note the newest turn of a lane.
UPDATE perdure.queues SET turn = %s WHERE name = %s;

-- name: queue_held
-- How many runs hold a slot of a queue.
SELECT count(*) FROM perdure.runs WHERE queue = %s AND token IS NOT NULL AND status = 'RUNNING';

-- name: queue_waiting
-- How many runs wait for a slot of a queue.
SELECT count(*) FROM perdure.runs WHERE queue = %s AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;

-- name: held_slots
-- The key and the worker of each run that holds a slot of a queue.
SELECT key, worker FROM perdure.runs WHERE queue = %s AND token IS NOT NULL AND status = 'RUNNING';

-- name: slots_of_others
-- The runs that hold a slot of a queue or by a call of a limit, under a claim of another worker than these.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs
WHERE queue IS NOT NULL AND token IS NOT NULL AND status = 'RUNNING' AND worker <> ALL(%s)
UNION ALL
SELECT id, uid, run.name, run.task, target, inputs, inputs_hash, created_at, reuse, status, run.token, worker,
       started_at, ended_at, result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs AS run
WHERE id IN (SELECT run FROM perdure.tickets WHERE state = 2) AND queue IS NULL AND token IS NOT NULL
  AND status = 'RUNNING' AND worker <> ALL(%s);

-- name: end_claim
-- End the claim of a worker that is gone; a claim that was lost by no crash does not count.
UPDATE perdure.runs SET token = NULL, worker = NULL, crashes = greatest(crashes - %s, 0)
WHERE id = %s AND token = %s AND status = 'RUNNING';

-- name: enter_lane
-- Put due runs into lanes of one level.
UPDATE perdure.runs SET lane = %s, due = %s
WHERE id IN (SELECT value::bigint FROM json_array_elements_text(%s::json));

-- name: leave_lane
-- Take a run out of its lane, because its row cannot be read.
UPDATE perdure.runs SET lane = NULL WHERE id = %s;

-- name: add_lanes
-- Lanes for waiting runs, given as a list of runs and turns.
INSERT INTO perdure.lanes (queue, task, key, level, turn)
SELECT queue, task, run.key, lane, (new.value ->> 1)::bigint
FROM json_array_elements(%s::json) AS new JOIN perdure.runs AS run ON id = (new.value ->> 0)::bigint
ON CONFLICT (queue, task, key, level) DO NOTHING;

-- name: lanes
-- One page of the lanes of a task, in order of turn.
SELECT turn, level, key FROM perdure.lanes
WHERE queue = %s AND task = %s AND (turn, level, key) > (%s, %s, %s) ORDER BY turn, level, key LIMIT %s;

-- name: heads
-- The first runs of a lane.
SELECT id, wake_at FROM perdure.runs
WHERE queue = %s AND task = %s AND key = %s AND lane = %s AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL
ORDER BY wake_at, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED;

-- name: waiting_runs
-- Runs without a driver, by number.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM perdure.runs WHERE id = ANY(%s) AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL ORDER BY wake_at, id;

-- name: set_lane_turn
-- Change the turn of a lane.
UPDATE perdure.lanes SET turn = %s WHERE queue = %s AND task = %s AND key = %s AND level = %s;

-- name: drop_lane
-- Remove a lane without waiting runs.
DELETE FROM perdure.lanes AS lane WHERE queue = %s AND task = %s AND key = %s AND level = %s AND NOT EXISTS (
    SELECT 1 FROM perdure.runs AS runs
    WHERE runs.queue = lane.queue AND runs.task = lane.task AND runs.key = lane.key AND runs.lane = lane.level
      AND runs.status IN ('QUEUED', 'SLEEPING', 'WAITING') AND runs.paused IS NULL
);

-- name: first_start
-- The first start of a queue since a time.
SELECT number, at FROM perdure.starts WHERE queue = %s AND at >= %s ORDER BY at, number LIMIT 1;

-- name: last_start
-- The number of the last start of a queue.
SELECT number FROM perdure.starts WHERE queue = %s ORDER BY at DESC, number DESC LIMIT 1;

-- name: insert_start
-- Record a start, not before the start before it.
INSERT INTO perdure.starts (queue, at, number)
SELECT %s::text, greatest(%s::bigint, coalesce(max(at), 0)), coalesce(max(number), 0) + 1
FROM (SELECT at, number FROM perdure.starts WHERE queue = %s ORDER BY at DESC, number DESC LIMIT 1) AS last;

-- name: prune_starts
-- Remove the starts that no window holds any more.
DELETE FROM perdure.starts WHERE queue = %s AND at < %s;

-- name: holder_of_key
-- The newest run of a key that was not cancelled or aborted.
SELECT runs.name, runs.status, submissions.until FROM perdure.submissions JOIN perdure.runs ON runs.id = submissions.run
WHERE submissions.task = %s AND submissions.key = %s AND runs.status NOT IN ('CANCELLED', 'ABORTED', 'REMOVED')
ORDER BY submissions.run DESC LIMIT 1;

-- name: queued_of_key
-- The runs of a key that have not begun, and do not begin before the transaction ends.
SELECT runs.id FROM perdure.submissions JOIN perdure.runs ON runs.id = submissions.run
WHERE submissions.task = %s AND submissions.key = %s AND runs.status = 'QUEUED' ORDER BY runs.id
FOR UPDATE OF runs;

-- name: last_start_of_key
-- When a run of a key has begun last.
SELECT max(runs.started_at) FROM perdure.submissions JOIN perdure.runs ON runs.id = submissions.run
WHERE submissions.task = %s AND submissions.key = %s;

-- name: unfinished_of_queue
-- The unfinished runs of a queue, or of one key of the queue.
SELECT id, status, cancel FROM perdure.runs
WHERE queue = %s AND (%s::text IS NULL OR key = %s) AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING') ORDER BY id;

-- name: note_submission
-- Keep the key of a run, and the time by which the run has to begin.
INSERT INTO perdure.submissions (run, task, key, until, start_by) VALUES (%s, %s, %s, %s, %s);

-- name: unbegun
-- The runs whose time to begin is over, without those that a worker is just claiming.
SELECT submissions.run, submissions.start_by, runs.status FROM perdure.submissions JOIN perdure.runs ON runs.id = submissions.run
WHERE submissions.start_by < %s ORDER BY submissions.start_by LIMIT %s
FOR UPDATE OF submissions, runs SKIP LOCKED;

-- name: unbegun_now
-- Whether the time to begin of any run is over.
SELECT 1 FROM perdure.submissions WHERE start_by < %s LIMIT 1;

-- name: start_by
-- The time by which a run has to begin.
SELECT start_by FROM perdure.submissions WHERE run = %s;

-- name: forget_start_by
-- The time to begin needs no further look.
UPDATE perdure.submissions SET start_by = NULL WHERE run = %s;

-- name: purge_submission
-- The submission of a removed run.
DELETE FROM perdure.submissions WHERE run = %s;

-- name: lock_key
-- Keep other submissions of a key out until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(%s, 7));

-- name: limit
-- A limit.
SELECT name, declared, override, ticket, uses FROM perdure.limits WHERE name = %s;

-- name: lock_limit
-- A limit, for a transaction that gives slots.
SELECT name, declared, override, ticket, uses FROM perdure.limits WHERE name = %s FOR UPDATE;

-- name: limits
-- All limits.
SELECT name, declared, override, ticket, uses FROM perdure.limits ORDER BY name;

-- name: limits_of
-- The limits that parked runs of these tasks wait for.
SELECT name, declared, override, ticket, uses FROM perdure.limits AS wanted
WHERE EXISTS (SELECT 1 FROM perdure.tickets AS tickets WHERE tickets.name = wanted.name AND task = ANY(%s) AND state = 1)
ORDER BY name;

-- name: declare_limit
-- Store the settings of a limit in the code; no row is written where they are known.
INSERT INTO perdure.limits (name, declared)
SELECT %s, %s WHERE NOT EXISTS (SELECT 1 FROM perdure.limits WHERE name = %s AND declared = %s)
ON CONFLICT (name) DO UPDATE SET declared = excluded.declared;

-- name: ensure_limit
-- A limit that allows everything, where no code has declared the limit in this store.
INSERT INTO perdure.limits (name, declared) VALUES (%s, '{}') ON CONFLICT (name) DO NOTHING;

-- name: override_limit
-- Change the settings of an operator.
UPDATE perdure.limits SET override = %s WHERE name = %s;

-- name: note_limit
-- Note the numbers of the newest ticket and use.
UPDATE perdure.limits SET ticket = %s, uses = %s WHERE name = %s;

-- name: limit_held
-- How many calls hold a slot of a limit.
SELECT count(*) FROM perdure.tickets AS ticket JOIN perdure.runs AS run ON run.id = ticket.run AND run.token = ticket.token
WHERE ticket.name = %s AND ticket.state = 2 AND run.status = 'RUNNING';

-- name: limit_waiting
-- How many calls wait for a slot of a limit.
SELECT count(*) FROM perdure.tickets AS ticket JOIN perdure.runs AS run ON run.id = ticket.run
WHERE ticket.name = %s AND ticket.state IN (0, 1, 3) AND run.status IN ('RUNNING', 'SLEEPING', 'WAITING');

-- name: waiting_tickets
-- One page of the tickets that wait in memory, in their order.
SELECT ticket.number, ticket.run, ticket.cost, coalesce(run.token = ticket.token AND run.status = 'RUNNING', false),
       run.status, run.paused
FROM perdure.tickets AS ticket LEFT JOIN perdure.runs AS run ON run.id = ticket.run
WHERE ticket.name = %s AND ticket.state = 0 AND ticket.number > %s ORDER BY ticket.number LIMIT %s;

-- name: parked_tickets
-- One page of the tickets of parked runs of a task, in their order.
SELECT ticket.number, ticket.run, ticket.cost, false, run.status, run.paused
FROM perdure.tickets AS ticket LEFT JOIN perdure.runs AS run ON run.id = ticket.run
WHERE ticket.name = %s AND ticket.task = %s AND ticket.state = 1 AND ticket.number > %s ORDER BY ticket.number LIMIT %s;

-- name: called_tickets
-- How many runs were made due since a time and have not asked again.
SELECT count(*) FROM perdure.tickets WHERE name = %s AND state = 3 AND at > %s;

-- name: known_ticket
-- The number of the ticket of a call.
SELECT number FROM perdure.tickets WHERE run = %s AND name = %s AND place = %s;

-- name: insert_ticket
-- A ticket that waits in memory.
INSERT INTO perdure.tickets (name, number, run, token, place, task, cost, state, since)
VALUES (%s, %s, %s, %s, %s, %s, %s, 0, %s);

-- name: repeat_ticket
-- The call of a ticket asks again.
UPDATE perdure.tickets SET token = %s, cost = %s, state = 0, used = NULL WHERE name = %s AND number = %s;

-- name: hold_ticket
-- A ticket takes a slot.
UPDATE perdure.tickets SET state = 2, used = %s WHERE name = %s AND number = %s;

-- name: call_ticket
-- The run of a ticket is made due.
UPDATE perdure.tickets SET state = 3, at = %s WHERE name = %s AND number = %s;

-- name: park_ticket
-- The run of a ticket is parked.
UPDATE perdure.tickets SET state = 1 WHERE name = %s AND number = %s AND run = %s AND token = %s;

-- name: drop_ticket
-- Remove a ticket.
DELETE FROM perdure.tickets WHERE name = %s AND number = %s;

-- name: free_ticket
-- Remove a ticket that was given under a token.
DELETE FROM perdure.tickets WHERE name = %s AND number = %s AND run = %s AND token = %s;

-- name: sweep_tickets
-- The tickets that hold no slot any more, because the claim has ended, wait to be asked for again.
UPDATE perdure.tickets AS ticket SET state = 4 WHERE name = %s AND state = 2 AND NOT EXISTS (
    SELECT 1 FROM perdure.runs AS run WHERE run.id = ticket.run AND run.token = ticket.token AND run.status = 'RUNNING'
);

-- name: purge_tickets
-- The tickets of a removed run.
DELETE FROM perdure.tickets WHERE run = %s;

-- name: someone_waits
-- Whether a call waits for a limit.
SELECT 1 FROM perdure.tickets WHERE name = %s AND state IN (0, 1) LIMIT 1;

-- name: tickets_of
-- The tickets of runs.
SELECT run, name, place, number, state FROM perdure.tickets WHERE run = ANY(%s);

-- name: waits_parked
-- Whether a parked run waits for a limit.
SELECT 1 FROM perdure.tickets WHERE run = %s AND state IN (1, 3) LIMIT 1;

-- name: queued_tickets
-- The calls of a run that wait for a slot, with the number of calls in front.
SELECT mine.name, mine.since, (
    SELECT count(*) FROM perdure.tickets AS other JOIN perdure.runs AS run ON run.id = other.run
    WHERE other.name = mine.name AND other.state IN (0, 1, 3) AND other.number < mine.number
      AND run.status IN ('RUNNING', 'SLEEPING', 'WAITING')
)
FROM perdure.tickets AS mine WHERE mine.run = %s AND mine.state IN (0, 1, 3) ORDER BY mine.name, mine.number;

-- name: first_use
-- The first use of a limit since a time.
SELECT number, at, cost FROM perdure.uses WHERE name = %s AND at >= %s ORDER BY at, number LIMIT 1;

-- name: spent
-- The sum of the costs since a time.
SELECT coalesce(sum(cost), 0) FROM perdure.uses WHERE name = %s AND at >= %s;

-- name: uses
-- One page of the uses of a limit, in order.
SELECT number, at, cost FROM perdure.uses WHERE name = %s AND (at, number) > (%s, %s) ORDER BY at, number LIMIT %s;

-- name: report_cost
-- Correct the cost of the use of a ticket.
UPDATE perdure.uses SET cost = %s WHERE name = %s AND number = (
    SELECT used FROM perdure.tickets WHERE name = %s AND number = %s AND token = %s
);

-- name: prune_uses
-- Remove the uses that no window holds any more.
DELETE FROM perdure.uses WHERE name = %s AND at < %s;

-- name: insert_use
-- Record a use, not before the use before it.
INSERT INTO perdure.uses (name, number, cost, at)
SELECT %s::text, %s::bigint, %s::bigint, greatest(
    perdure.now_us(), coalesce((SELECT max(at) FROM perdure.uses WHERE name = %s), 0)
);

-- name: held_tickets
-- The tickets of limits that hold a slot.
SELECT ticket.name, ticket.number, ticket.token
FROM perdure.tickets AS ticket JOIN perdure.runs AS run ON run.id = ticket.run AND run.token = ticket.token
WHERE ticket.name = ANY(%s) AND ticket.state = 2 AND run.status = 'RUNNING';

-- name: subscriptions
-- The receivers of events.
SELECT name, kinds, task, hook, filter, created_at FROM perdure.subscriptions ORDER BY name;

-- name: put_subscription
-- Keep a receiver, or change its settings.
INSERT INTO perdure.subscriptions (name, kinds, task, hook, filter, created_at) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (name) DO UPDATE
SET kinds = excluded.kinds, task = excluded.task, hook = excluded.hook, filter = excluded.filter;

-- name: drop_subscription
-- Forget a receiver.
DELETE FROM perdure.subscriptions WHERE name = %s RETURNING name;

-- name: drop_notices_of
-- Forget the events for a receiver.
DELETE FROM perdure.notices WHERE subscription = %s;

-- name: note_event
-- Write an event for each receiver of its kind, unless the receiver has the event.
INSERT INTO perdure.notices (subscription, run, kind, cause, at, status, detail, due)
SELECT receiver.name, runs.id, %s::text, %s::text, %s::bigint, runs.status, %s::bytea, %s::bigint
FROM perdure.subscriptions AS receiver JOIN perdure.runs AS runs ON runs.id = %s
WHERE strpos(receiver.kinds, %s::text) > 0 AND (receiver.task IS NULL OR receiver.task = runs.task)
ON CONFLICT DO NOTHING RETURNING id;

-- name: due_notice
-- The event for a receiver that is due longest.
SELECT id FROM perdure.notices WHERE subscription = %s AND state = 0 AND due <= %s ORDER BY due, id LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: first_due_notice
-- When the first event for a receiver is due.
SELECT min(due) FROM perdure.notices WHERE subscription = %s AND state = 0;

-- name: lease_notice
-- Keep other processes from an event until that time.
UPDATE perdure.notices SET token = %s, due = %s WHERE id = %s;

-- name: settle_notice
-- Write what became of an attempt to deliver, if the lease still holds.
UPDATE perdure.notices SET state = %s, due = %s, attempts = attempts + %s, error = %s, token = NULL
WHERE id = %s AND token = %s AND state = 0 RETURNING id;

-- name: revive_notices
-- Deliver the events for a receiver again that were given up.
UPDATE perdure.notices SET state = 0, due = %s, attempts = 0, token = NULL WHERE subscription = %s AND state = 2 RETURNING id;

-- name: notice
-- An event.
SELECT id, subscription, run, kind, cause, at, status, detail, state, due, attempts, error FROM perdure.notices WHERE id = %s;

-- name: notices
-- The newest events.
SELECT id, subscription, run, kind, cause, at, status, detail, state, due, attempts, error FROM perdure.notices
ORDER BY id DESC LIMIT %s;

-- name: notice_counts
-- How many events each receiver has in each state, and since when the oldest of them is there.
SELECT subscription, state, count(*), min(at) FROM perdure.notices GROUP BY subscription, state ORDER BY subscription, state;

-- name: noted_of_task
-- When an event of a kind and a cause was noted last for a run of the task.
SELECT max(notices.at) FROM perdure.notices AS notices JOIN perdure.runs AS runs ON runs.id = notices.run
WHERE notices.kind = %s AND notices.cause = %s AND runs.task = %s;

-- name: purge_notices
-- The events of a removed run.
DELETE FROM perdure.notices WHERE run = %s;
