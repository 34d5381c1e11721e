-- All statements of the SQLite store, without pragmas and BEGIN/COMMIT. Parameters are bound in the order of their
-- question marks: the order of the records in `perdure.core.ground.model`.

-- name: insert_run
-- Submit a run; no row is inserted when the name is taken.
INSERT INTO runs (uid, name, task, target, inputs, inputs_hash, created_at, reuse, tags, queue, key, priority, carried,
                  status, token, worker, started_at, crashes, mark, wake_at, wake_boot)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)
ON CONFLICT (name) DO NOTHING;

-- name: insert_claimed_run
-- Submit a run with a claim; no row is inserted when the name is taken or the task is paused.
INSERT INTO runs (uid, name, task, target, inputs, inputs_hash, created_at, reuse, tags, queue, key, priority, carried,
                  status, token, worker, started_at, crashes, mark, wake_at, wake_boot)
SELECT ?, ?, ?3, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?
WHERE NOT EXISTS (SELECT 1 FROM paused_tasks WHERE task = ?3)
ON CONFLICT (name) DO NOTHING;

-- name: insert_segment_fenced
-- Append one segment, if the claim still holds: fence and row in one statement, the fast path of a sequential body.
INSERT INTO segments (run, number, data) SELECT id, ?, ? FROM runs WHERE id = ? AND token = ? AND status = 'RUNNING';

-- name: holder
-- The token for writes of a run; no row if the run has ended or was not started.
SELECT token FROM runs WHERE id = ? AND status = 'RUNNING';

-- name: insert_segment
-- Append a segment inside a transaction that has checked the fence.
INSERT INTO segments (run, number, data) VALUES (?, ?, ?);

-- name: note_source
-- Note that the journal of a run refers to a source snapshot.
INSERT INTO run_sources (run, source) VALUES (?, ?) ON CONFLICT DO NOTHING;

-- name: end_action
-- Note whether an action has an outcome that counts.
UPDATE actions SET ended = ? WHERE run = ? AND parent = ? AND action = ?;

-- name: insert_action
-- Record a started action inside a transaction that has checked the fence.
INSERT INTO actions (run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures,
                     wake_at, wake_boot, boot, begun, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: update_action
-- Set the changing fields of an action.
UPDATE actions SET attempt = ?, failures = ?, wake_at = ?, wake_boot = ?, boot = ?, state = ?
WHERE run = ? AND parent = ? AND action = ?;

-- name: put_cache
-- Keep a cached outcome; the last put wins.
INSERT INTO cache (key, value, at) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, at = excluded.at;

-- name: finish
-- End a run and clear the claim, if the claim still holds. The mark later shows whether the end of the journal is
-- there.
UPDATE runs SET status = ?, result = ?, value = ?, ended_at = ?, token = NULL, worker = NULL, paused = NULL,
    crashes = 0, mark =
    coalesce((SELECT number FROM segments WHERE run = runs.id ORDER BY number DESC LIMIT 1), 0)
WHERE id = ? AND token = ? AND status = 'RUNNING';

-- name: claim
-- Claim a run; the caller has compared token and status in the same transaction.
UPDATE runs SET token = ?, worker = ?, status = 'RUNNING', result = NULL, value = NULL, ended_at = NULL,
                started_at = coalesce(started_at, ?), crashes = ?, mark = ?, wake_at = NULL, wake_boot = NULL,
                paused = NULL, lane = NULL
WHERE id = ?;

-- name: park
-- Let a run leave memory until the wake time and clear the claim, if the claim still holds. A run whose driver has not
-- heard of the request to cancel the run is due now.
UPDATE runs SET status = ?, token = NULL, worker = NULL, crashes = 0, mark = ?,
                wake_at = CASE WHEN cancel IS NULL OR ? THEN ? ELSE created_at END,
                wake_boot = CASE WHEN cancel IS NULL OR ? THEN ? ELSE 0 END
WHERE id = ? AND token = ? AND status = 'RUNNING';

-- name: due
-- Due runs of a task, the longest due first.
SELECT id, wake_boot FROM runs INDEXED BY runs_due
WHERE task = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL AND wake_boot <= ?
ORDER BY wake_boot, id LIMIT ?;

-- name: due_run
-- A run, if due.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL AND wake_boot <= ?;

-- name: entering
-- Those runs of the list that are due and wait in queues, without what their lanes do not depend on.
SELECT id, task, key, priority, wake_at, status <> 'QUEUED', queue FROM runs
WHERE id IN (SELECT value FROM json_each(?)) AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL
  AND wake_boot <= ? AND queue IS NOT NULL;

-- name: next_due
-- When the first run of a task is due.
SELECT wake_boot FROM runs INDEXED BY runs_due
WHERE task = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL ORDER BY wake_boot LIMIT 1;

-- name: rebase
-- The machine has booted: convert times since the last boot into times since this boot, by the wall clock.
UPDATE runs SET wake_boot = ? + (wake_at - ?) WHERE status IN ('QUEUED', 'SLEEPING', 'WAITING');

-- name: release
-- Give a claim back.
UPDATE runs SET token = NULL, worker = NULL, crashes = 0 WHERE id = ? AND token = ? AND status = 'RUNNING';

-- name: put_refusal
-- Note why a process could not drive a run that it has just let go of.
INSERT INTO refusals AS old (run, worker, error, message, place, at, again, tries, entries)
VALUES (?, ?, ?, ?, ?, ?, ?, 1, coalesce((SELECT max(number) FROM segments WHERE run = ?), 0))
ON CONFLICT (run) DO UPDATE SET
    worker = excluded.worker, error = excluded.error, message = excluded.message, place = excluded.place,
    at = excluded.at, again = excluded.again, entries = excluded.entries,
    tries = CASE WHEN old.entries = excluded.entries THEN old.tries + 1 ELSE 1 END;

-- name: refusal
-- Why the last process that tried could not drive a run, unless the run has a claim or has recorded something since.
SELECT refusals.worker, error, message, place, at, again, tries, entries
FROM refusals AS refusals JOIN runs AS runs ON runs.id = refusals.run
WHERE refusals.run = ? AND runs.token IS NULL AND runs.status = 'RUNNING'
  AND entries = coalesce((SELECT max(number) FROM segments AS one WHERE one.run = refusals.run), 0);

-- name: purge_refusal
-- Why a run could not be driven counts no more.
DELETE FROM refusals WHERE run = ?;

-- name: move_code
-- The code of a run is elsewhere from now on.
UPDATE runs SET target = ? WHERE id = ? AND token = ? AND status = 'RUNNING';

-- name: abort
-- End an unfinished run, also under the claim of a worker.
UPDATE runs SET status = 'ABORTED', token = NULL, worker = NULL, ended_at = ?, wake_at = NULL, wake_boot = NULL,
                paused = NULL
WHERE id = ? AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: cancel
-- Ask to cancel an unfinished run. A queued run is over at once, a parked run is due now.
UPDATE runs SET cancel = coalesce(cancel, ?1),
    cancel_until = min(coalesce(cancel_until, ?2), coalesce(?2, cancel_until)),
    ended_at = CASE status WHEN 'QUEUED' THEN ?3 END,
    result = CASE status WHEN 'QUEUED' THEN 2 END,
    wake_at = CASE WHEN status IN ('SLEEPING', 'WAITING') THEN min(wake_at, ?4) END,
    wake_boot = CASE WHEN status IN ('SLEEPING', 'WAITING') THEN min(wake_boot, ?5) END,
    paused = NULL,
    status = CASE status WHEN 'QUEUED' THEN 'CANCELLED' ELSE status END
WHERE id = ?6 AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: pause
-- Pause an unfinished run, unless the run was asked to cancel. A pause that holds already counts.
UPDATE runs SET paused = coalesce(paused, ?)
WHERE id = ? AND cancel IS NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: unpause
-- End the pause of a run. A run that was in a lane of a queue is due, and enters the queue again.
UPDATE runs SET paused = NULL, wake_boot = CASE WHEN lane IS NULL THEN wake_boot ELSE 0 END
WHERE id = ? AND paused IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: pause_task
-- Pause a task, unless the task is paused.
INSERT INTO paused_tasks (task, since) VALUES (?, ?) ON CONFLICT (task) DO NOTHING;

-- name: resume_task
-- End the pause of a task.
DELETE FROM paused_tasks WHERE task = ?;

-- name: paused_tasks
-- The paused tasks, and since when.
SELECT task, since FROM paused_tasks ORDER BY task;

-- name: end_cancelled
-- End an unfinished run that was asked to cancel, also under the claim of a worker.
UPDATE runs SET status = 'CANCELLED', result = 2, token = NULL, worker = NULL, ended_at = ?, wake_at = NULL,
                wake_boot = NULL, paused = NULL
WHERE id = ? AND cancel IS NOT NULL AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING');

-- name: wake
-- Make a run without a driver due now.
UPDATE runs SET wake_at = min(wake_at, ?), wake_boot = min(wake_boot, ?)
WHERE id = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING');

-- name: run_by_name
-- The run with the name.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE name = ?;

-- name: run_by_id
-- The run with the number.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id = ? AND status <> 'REMOVED';

-- name: runs_all
-- All runs, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE status <> 'REMOVED' AND id < ? ORDER BY id DESC LIMIT ?;

-- name: runs_running
-- RUNNING runs, newest first. Without the hint SQLite would read the whole table to avoid a sort.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id IN (
    SELECT id FROM runs INDEXED BY runs_running WHERE status = 'RUNNING' AND id < ? ORDER BY id DESC LIMIT ?
) ORDER BY id DESC;

-- name: runs_succeeded
-- SUCCEEDED runs, newest first. Most runs succeed, so the table is read from the end.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE status = 'SUCCEEDED' AND id < ? ORDER BY id DESC LIMIT ?;

-- name: runs_rare
-- Runs of any other status, newest first; the second condition enables the partial index.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE status = ? AND status NOT IN ('RUNNING', 'SUCCEEDED') AND id < ?
ORDER BY id DESC LIMIT ?;

-- name: runs_all_of_task
-- All runs of a task, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs INDEXED BY runs_task WHERE task = ? AND status <> 'REMOVED' AND id < ? ORDER BY id DESC LIMIT ?;

-- name: runs_running_of_task
-- RUNNING runs of a task, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id IN (
    SELECT id FROM runs INDEXED BY runs_running WHERE status = 'RUNNING' AND task = ? AND id < ?
    ORDER BY id DESC LIMIT ?
) ORDER BY id DESC;

-- name: runs_succeeded_of_task
-- SUCCEEDED runs of a task, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs INDEXED BY runs_task WHERE task = ? AND status = 'SUCCEEDED' AND id < ? ORDER BY id DESC LIMIT ?;

-- name: runs_rare_of_task
-- Runs of a task and of any other status, newest first; the second condition enables the partial index.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs INDEXED BY runs_rare
WHERE status = ? AND status NOT IN ('RUNNING', 'SUCCEEDED') AND task = ? AND id < ?
ORDER BY id DESC LIMIT ?;

-- name: counts
-- The number of runs of each status.
SELECT status, count(*) FROM runs WHERE status <> 'REMOVED' GROUP BY status;

-- name: similar
-- Unfinished runs of a task and inputs, newest first.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE task = ? AND inputs_hash = ? AND status = 'RUNNING' ORDER BY id DESC;

-- name: abandoned
-- RUNNING runs of a task without a claim of one of these workers (a JSON array); a run that is paused, or whose task is
-- paused, only with a claim.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs INDEXED BY runs_running
WHERE status = 'RUNNING' AND task = ? AND (worker IS NULL OR worker NOT IN (SELECT value FROM json_each(?)))
      AND (token IS NOT NULL
           OR (paused IS NULL AND NOT EXISTS (SELECT 1 FROM paused_tasks AS held WHERE held.task = runs.task)))
ORDER BY id LIMIT ?;

-- name: version
-- Changes whenever another connection has committed.
PRAGMA data_version;

-- name: journal_length
-- The number of the last entry of a run.
SELECT coalesce((SELECT number FROM segments WHERE run = ? ORDER BY number DESC LIMIT 1), 0);

-- name: last_action
-- The highest action number of a run: leaps from parent to parent in the primary key to the last action of each.
WITH RECURSIVE family (run, parent) AS (
    SELECT run, parent FROM (SELECT run, parent FROM actions WHERE run = ? ORDER BY parent LIMIT 1)
    UNION ALL
    SELECT run, (SELECT min(a.parent) FROM actions AS a WHERE a.run = family.run AND a.parent > family.parent)
    FROM family WHERE parent IS NOT NULL
)
SELECT coalesce(max((SELECT max(a.action) FROM actions AS a WHERE a.run = family.run AND a.parent = family.parent)), 0)
FROM family WHERE parent IS NOT NULL;

-- name: segments_of_run
-- One page of a journal, in order.
SELECT run, number, data FROM segments WHERE run = ? AND number > ? ORDER BY number LIMIT ?;

-- name: segments_numbered
-- Segments of a run by number (a JSON array), in order.
SELECT run, number, data FROM segments WHERE run = ? AND number IN (SELECT value FROM json_each(?)) ORDER BY number;

-- name: segments_ahead
-- The journals of several runs (a JSON array), each in order.
SELECT run, number, data FROM segments WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, number;

-- name: actions_ahead
-- The root tasks of several runs (a JSON array), and the actions of their bodies.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM actions WHERE run IN (SELECT value FROM json_each(?)) AND parent IN (-1, 0) ORDER BY run, action;

-- name: actions_of_parent
-- The actions of one body, in order of their number.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM actions WHERE run = ? AND parent = ? ORDER BY action;

-- name: actions_of_run
-- All actions of a run, in order of number.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM actions WHERE run = ? ORDER BY action;

-- name: open_actions
-- The actions of a run without an outcome, in order of their number.
SELECT run, parent, action, branch, seq, occ, kind, fp, name, label, inputs, source, at, attempt, failures, wake_at,
       wake_boot, boot, begun, state
FROM actions INDEXED BY actions_open WHERE run = ? AND ended = 0 ORDER BY action;

-- name: source_id
-- The number of a snapshot.
SELECT id FROM sources WHERE digest = ?;

-- name: insert_source
-- Keep a snapshot, unless another process was faster.
INSERT INTO sources (digest, python, modules) VALUES (?, ?, ?) ON CONFLICT (digest) DO NOTHING;

-- name: source
-- The snapshot with the number.
SELECT digest, python, modules FROM sources WHERE id = ?;

-- name: cache_get
-- A cached outcome.
SELECT value FROM cache WHERE key = ?;

-- name: renew
-- Insert or update a worker's row.
INSERT INTO workers (id, pid, host, boot, lease_until_boot, started_at, serves) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, host = excluded.host, boot = excluded.boot,
                               lease_until_boot = excluded.lease_until_boot, started_at = excluded.started_at,
                               serves = excluded.serves;

-- name: worker
-- A worker's row.
SELECT id, pid, host, boot, lease_until_boot, started_at, serves FROM workers WHERE id = ?;

-- name: forget
-- Remove a worker's row.
DELETE FROM workers WHERE id = ?;

-- name: set_meta
-- Change a fact about the store.
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: insert_meta
-- Set a fact about the store.
INSERT INTO meta (key, value) VALUES (?, ?);

-- name: meta
-- Read a fact about the store.
SELECT value FROM meta WHERE key = ?;

-- name: ended
-- Finished runs that ended before a time, by number; an unwanted status is bound as NULL.
SELECT id, uid, name, status, ended_at FROM runs
WHERE id > ? AND status IN (?, ?, ?, ?) AND ended_at < ? ORDER BY id LIMIT ?;

-- name: reused
-- The runs that an unfinished run is to reuse. Two queries, each with its index.
SELECT reuse FROM runs INDEXED BY runs_running WHERE status = 'RUNNING' AND reuse IS NOT NULL
UNION
SELECT reuse FROM runs WHERE status = 'QUEUED' AND status NOT IN ('RUNNING', 'SUCCEEDED') AND reuse IS NOT NULL;

-- name: end_of_run
-- The facts that `remove` checks again.
SELECT name, status, ended_at FROM runs WHERE id = ?;

-- name: remove
-- Take a run out of sight at once, with any number of rows. The row stays until the others are gone, so that its number
-- cannot become another run's meanwhile; its name cannot be typed, nor given to a run.
UPDATE runs SET status = 'REMOVED', name = char(1) || id, inputs = x'', value = NULL, reuse = NULL WHERE id = ?;

-- name: removed
-- A removed run with rows left; the second condition enables the partial index.
SELECT id FROM runs WHERE status = 'REMOVED' AND status NOT IN ('RUNNING', 'SUCCEEDED') LIMIT 1;

-- name: purge_segments
-- Some segments of a removed run.
DELETE FROM segments WHERE (run, number) IN (
    SELECT run, number FROM segments WHERE run = ? ORDER BY number LIMIT ?
);

-- name: purge_sources
-- The source references of a removed run.
DELETE FROM run_sources WHERE run = ?;

-- name: purge_actions
-- Some actions of a removed run.
DELETE FROM actions WHERE (run, parent, action) IN (
    SELECT run, parent, action FROM actions WHERE run = ? ORDER BY parent, action LIMIT ?
);

-- name: purge_run
-- The last row of a removed run.
DELETE FROM runs WHERE id = ? AND status = 'REMOVED';

-- name: uids
-- The uids of all runs.
SELECT uid FROM runs WHERE status <> 'REMOVED';

-- name: claimed_since
-- For each worker with claims, the first start of a claimed run.
SELECT worker, min(coalesce(started_at, created_at)) FROM runs INDEXED BY runs_running
WHERE status = 'RUNNING' AND token IS NOT NULL GROUP BY worker;

-- name: stored_runs
-- One page of the values of runs.
SELECT id, inputs, value FROM runs WHERE id > ? ORDER BY id LIMIT ?;

-- name: stored_segments
-- One page of segments, long enough for a reference to a file.
SELECT run, number, data FROM segments
WHERE (run, number) > (?, ?) AND length(data) >= 32 ORDER BY run, number LIMIT ?;

-- name: stored_actions
-- One page of values of actions, long enough for a reference to a file.
SELECT run, parent, action, inputs, state FROM actions
WHERE (run, parent, action) > (?, ?, ?) AND (length(inputs) >= 32 OR length(state) >= 32)
ORDER BY run, parent, action LIMIT ?;

-- name: stored_cache
-- One page of the cached values.
SELECT key, value FROM cache WHERE key > ? ORDER BY key LIMIT ?;

-- name: cached
-- Cached outcomes from before a time.
SELECT key, value, at FROM cache WHERE at < ? LIMIT ?;

-- name: uncache
-- Remove a cached outcome, unless put again.
DELETE FROM cache WHERE key = ? AND at < ?;

-- name: workers
-- All workers.
SELECT id, pid, host, boot, lease_until_boot, started_at, serves FROM workers;

-- name: unused_sources
-- Snapshots without a reference from a row. Reads the rows of all actions.
SELECT id FROM sources
WHERE id NOT IN (SELECT source FROM run_sources UNION SELECT source FROM actions);

-- name: recent_sources
-- Snapshots that runs refer to, written since a time: of runs that have not ended, or ended after the time.
SELECT source FROM run_sources WHERE run IN (SELECT id FROM runs WHERE ended_at IS NULL OR ended_at >= ?)
UNION
SELECT source FROM actions WHERE run IN (SELECT id FROM runs WHERE ended_at IS NULL OR ended_at >= ?);

-- name: drop_source
-- Remove a snapshot.
DELETE FROM sources WHERE id = ?;

-- name: receiver
-- The run of a message; the write lock keeps commits of the run out.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id = ? AND status <> 'REMOVED';

-- name: message_keyed
-- The message of a run and box with the key.
SELECT number, box, key, value, at, taken FROM messages WHERE run = ? AND box = ? AND key = ?;

-- name: last_message
-- The highest number of a message of the run.
SELECT coalesce((SELECT number FROM messages WHERE run = ? ORDER BY number DESC LIMIT 1), 0);

-- name: insert_message
-- Store a message.
INSERT INTO messages (run, number, box, key, value, at, taken) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: is_message
-- Whether the message was stored by this very send.
SELECT 1 FROM messages WHERE run = ? AND number = ? AND box = ? AND value = ? AND at = ?;

-- name: take_message
-- Note the entry that takes a message, or (NULL) that the message is given back. The first entry counts.
UPDATE messages SET taken = CASE WHEN ? IS NULL THEN NULL ELSE coalesce(taken, ?) END
WHERE run = ? AND number = ?;

-- name: wake_for_message
-- Let a parked run be due now if an open wait of the run has an untaken message.
UPDATE runs AS parked SET wake_at = min(wake_at, ?), wake_boot = min(wake_boot, ?)
WHERE id = ? AND status IN ('SLEEPING', 'WAITING') AND EXISTS (
    SELECT 1 FROM actions AS wait
    WHERE wait.run = parked.id AND wait.ended = 0 AND wait.kind IN (10, 11) AND EXISTS (
        SELECT 1 FROM messages AS message
        WHERE message.run = wait.run AND message.box = wait.name AND message.taken IS NULL
    )
);

-- name: messages
-- One page of all messages of a run.
SELECT number, box, key, value, at, taken FROM messages
WHERE run = ? AND number > ? ORDER BY number LIMIT ?;

-- name: messages_of_box
-- One page of the untaken messages of a box.
SELECT number, box, key, value, at, taken FROM messages
WHERE run = ? AND box = ? AND number > ? AND taken IS NULL ORDER BY number LIMIT ?;

-- name: addressee
-- The run with the name, and its first open wait for the box.
SELECT runs.id, wait.run IS NOT NULL, wait.inputs
FROM runs LEFT JOIN actions AS wait INDEXED BY actions_waiting
  ON wait.run = runs.id AND wait.name = ? AND wait.ended = 0 AND wait.kind IN (10, 11)
WHERE runs.name = ? ORDER BY wait.action LIMIT 1;

-- name: news
-- The first untaken message of each of the given runs and boxes above a number.
SELECT message.run, message.number, message.box, message.key, message.value, message.at, message.taken FROM (
    SELECT json_extract(value, '$[0]') AS run, json_extract(value, '$[1]') AS box, json_extract(value, '$[2]') AS above
    FROM json_each(?)
) AS wanted
JOIN messages AS message ON message.run = wanted.run AND message.number = (
    SELECT first.number FROM messages AS first
    WHERE first.run = wanted.run AND first.box = wanted.box AND first.number > wanted.above AND first.taken IS NULL
    ORDER BY first.number LIMIT 1
);

-- name: open_waits
-- The waits for messages of unfinished runs, without waits in bodies that have ended.
SELECT runs.name, wait.run, wait.parent, wait.action, wait.branch, wait.seq, wait.occ, wait.kind, wait.fp, wait.name,
       wait.label, wait.inputs, wait.source, wait.at, wait.attempt, wait.failures, wait.wake_at, wait.wake_boot,
       wait.boot, wait.begun, wait.state
FROM actions AS wait JOIN runs AS runs ON runs.id = wait.run
WHERE wait.ended = 0 AND wait.kind IN (10, 11) AND runs.status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING')
  AND NOT EXISTS (
      SELECT 1 FROM actions AS body
      WHERE body.run = wait.run AND body.action = wait.parent AND body.ended = 1
  )
ORDER BY wait.run, wait.action;

-- name: unread
-- The untaken messages of unfinished runs, counted.
SELECT runs.name, message.box, count(*), min(message.at)
FROM messages AS message JOIN runs AS runs ON runs.id = message.run
WHERE message.taken IS NULL AND runs.status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING')
GROUP BY message.run, runs.name, message.box ORDER BY message.run, message.box;

-- name: purge_messages
-- Some messages of a removed run.
DELETE FROM messages WHERE (run, number) IN (
    SELECT run, number FROM messages WHERE run = ? ORDER BY number LIMIT ?
);

-- name: publish
-- Replace the latest value of a name of a run.
INSERT INTO published (run, name, value, at) VALUES (?, ?, ?, ?)
ON CONFLICT (run, name) DO UPDATE SET value = excluded.value, at = excluded.at;

-- name: published
-- The latest values of a run.
SELECT name, value, at FROM published WHERE run = ? ORDER BY name;

-- name: purge_published
-- Some published values of a removed run.
DELETE FROM published WHERE (run, name) IN (
    SELECT run, name FROM published WHERE run = ? ORDER BY name LIMIT ?
);

-- name: stored_published
-- One page of published values, long enough for a reference to a file.
SELECT run, name, value FROM published
WHERE (run, name) > (?, ?) AND length(value) >= 32 ORDER BY run, name LIMIT ?;

-- name: stream
-- Add an item to a stream, under the next number.
INSERT INTO streamed (run, name, attempt, value, at, number)
SELECT ?, ?, ?, ?, ?, coalesce(
    (SELECT number FROM streamed WHERE run = ? AND name = ? ORDER BY number DESC LIMIT 1), 0
) + 1;

-- name: streamed
-- One page of the items of a stream: so many items, and no item behind so many bytes. The last number comes first, from the
-- lengths alone, so that no value is read that is not in the page.
SELECT name, number, attempt, value, at FROM streamed
WHERE run = ? AND name = ? AND number > ? AND number <= (
    SELECT max(number) FROM (
        SELECT number, sum(coalesce(length(value), 0)) OVER (
            ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
        FROM streamed WHERE run = ? AND name = ? AND number > ? ORDER BY number LIMIT ?
    ) AS sizes WHERE before IS NULL OR before < ?
) ORDER BY number;

-- name: last_streamed
-- The last item of a stream.
SELECT name, number, attempt, value, at FROM streamed
WHERE run = ? AND name = ? ORDER BY number DESC LIMIT 1;

-- name: streamed_of_run
-- One page of the items of all streams of a run.
SELECT name, number, attempt, value, at FROM streamed
WHERE run = ? AND (name, number) > (?, ?) ORDER BY name, number LIMIT ?;

-- name: purge_streamed
-- Some items of a removed run.
DELETE FROM streamed WHERE (run, name, number) IN (
    SELECT run, name, number FROM streamed WHERE run = ? ORDER BY name, number LIMIT ?
);

-- name: stored_streamed
-- One page of items of streams, long enough for a reference to a file.
SELECT run, name, number, value FROM streamed
WHERE (run, name, number) > (?, ?, ?) AND length(value) >= 32 ORDER BY run, name, number LIMIT ?;

-- name: stored_messages
-- One page of the values of messages, long enough for a reference to a file.
SELECT run, number, value FROM messages
WHERE (run, number) > (?, ?) AND length(value) >= 32 ORDER BY run, number LIMIT ?;

-- name: schedule
-- One schedule.
SELECT key, at, paused, fired FROM schedules WHERE key = ?;

-- name: begin_schedule
-- Begin an unknown schedule, paused like the others of the name; no row is inserted when another process was faster.
INSERT INTO schedules (key, at, paused)
VALUES (?, ?, (SELECT max(paused) FROM schedules WHERE substr(key || ' ', 1, instr(key || ' ', ' ') - 1) = ?))
ON CONFLICT (key) DO NOTHING;

-- name: advance_schedule
-- Move a schedule on from the expected position, unless the schedule is paused.
UPDATE schedules SET at = ?, fired = coalesce(?, fired)
WHERE key = ? AND at = ? AND at < ? AND paused IS NULL;

-- name: pause_schedules
-- Pause the schedules of a name.
UPDATE schedules SET paused = ? WHERE substr(key || ' ', 1, instr(key || ' ', ' ') - 1) = ? AND paused IS NULL;

-- name: resume_schedules
-- End the pause of the schedules of a name, and leave out what fell into the pause.
UPDATE schedules SET paused = NULL, at = max(at, ?)
WHERE substr(key || ' ', 1, instr(key || ' ', ' ') - 1) = ? AND paused IS NOT NULL;

-- name: adopt_schedule
-- Store a schedule that another store had.
INSERT INTO schedules (key, at, paused, fired) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO NOTHING;

-- name: schedules
-- All schedules.
SELECT key, at, paused, fired FROM schedules ORDER BY key;

-- name: movable
-- A run that may go to another store.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id = ? AND status <> 'REMOVED';

-- name: move
-- Release a run for another store. The wake time stays; only the index of due runs drops the run.
UPDATE runs SET status = 'MOVED', worker = ?, wake_boot = NULL WHERE id = ?;

-- name: arrived
-- Note that the other store has a run.
UPDATE runs SET token = ? WHERE id = ? AND status = 'MOVED';

-- name: take_back
-- Undo the release.
UPDATE runs SET status = ?, token = NULL, worker = NULL, wake_boot = ? WHERE id = ? AND status = 'MOVED';

-- name: adopt_run
-- Store a run from another store; no row is inserted when the name is taken.
INSERT INTO runs (uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, started_at, ended_at, result,
                  value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried, wake_boot)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- name: was_adopted
-- Whether a run of another store has come here before.
SELECT 1 FROM adopted WHERE uid = ?;

-- name: note_adopted
-- Keep in mind that a run of another store has come here.
INSERT INTO adopted (uid) VALUES (?) ON CONFLICT (uid) DO NOTHING;

-- name: quick_check
-- Whether the pages of the file are consistent: a row `ok`, or a row for each fault.
PRAGMA quick_check(20);

-- name: queue
-- A queue.
SELECT name, declared, override, paused, turn FROM queues WHERE name = ?;

-- name: lock_queue
-- A queue, for a transaction that claims runs of the queue.
SELECT name, declared, override, paused, turn FROM queues WHERE name = ?;

-- name: queues
-- All queues.
SELECT name, declared, override, paused, turn FROM queues ORDER BY name;

-- name: queues_of
-- The queues in which runs of these tasks wait.
SELECT name, declared, override, paused, turn FROM queues
WHERE EXISTS (SELECT 1 FROM lanes WHERE queue = name AND task IN (SELECT value FROM json_each(?))) ORDER BY name;

-- name: declare_queue
-- Store the settings of a queue in the code; no row is written where they are known.
INSERT INTO queues (name, declared)
SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM queues WHERE name = ? AND declared = ?)
ON CONFLICT (name) DO UPDATE SET declared = excluded.declared;

-- name: ensure_queue
-- A queue without limits, for runs whose queue no code has declared in this store.
INSERT INTO queues (name, declared) VALUES (?, '{}') ON CONFLICT (name) DO NOTHING;

-- name: override_queue
-- Change the settings of an operator.
UPDATE queues SET override = ? WHERE name = ?;

-- name: pause_queue
-- Pause a queue that is not paused.
UPDATE queues SET paused = ? WHERE name = ? AND paused IS NULL;

-- name: resume_queue
-- End the pause of a queue.
UPDATE queues SET paused = NULL WHERE name = ? AND paused IS NOT NULL;

-- name: set_queue_turn
-- Note the newest turn of a lane.
UPDATE queues SET turn = ? WHERE name = ?;

-- name: queue_held
-- How many runs hold a slot of a queue.
SELECT count(*) FROM runs INDEXED BY runs_held WHERE queue = ? AND token IS NOT NULL AND status = 'RUNNING';

-- name: queue_waiting
-- How many runs wait for a slot of a queue.
SELECT count(*) FROM runs INDEXED BY runs_waiting WHERE queue = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;

-- name: held_slots
-- The key and the worker of each run that holds a slot of a queue.
SELECT key, worker FROM runs INDEXED BY runs_held WHERE queue = ? AND token IS NOT NULL AND status = 'RUNNING';

-- name: slots_of_others
-- The runs that hold a slot, of a queue or by a call of a limit, under a claim of another worker than these.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs INDEXED BY runs_held
WHERE queue IS NOT NULL AND token IS NOT NULL AND status = 'RUNNING' AND worker NOT IN (SELECT value FROM json_each(?))
UNION
SELECT id, uid, runs.name, runs.task, target, inputs, inputs_hash, created_at, reuse, status, runs.token, worker,
       started_at, ended_at, result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM tickets INDEXED BY tickets_held JOIN runs ON runs.id = tickets.run AND runs.token = tickets.token
WHERE tickets.state = 2 AND status = 'RUNNING' AND worker NOT IN (SELECT value FROM json_each(?));

-- name: end_claim
-- End the claim of a worker that is gone; a claim that was lost by no crash does not count.
UPDATE runs SET token = NULL, worker = NULL, crashes = max(crashes - ?, 0)
WHERE id = ? AND token = ? AND status = 'RUNNING';

-- name: enter_lane
-- Put due runs into lanes of one level.
UPDATE runs SET lane = ?, wake_boot = ? WHERE id IN (SELECT value FROM json_each(?));

-- name: leave_lane
-- Take a run out of its lane, because its row cannot be read.
UPDATE runs SET lane = NULL WHERE id = ?;

-- name: add_lanes
-- Lanes for waiting runs, given as a list of runs and turns.
INSERT INTO lanes (queue, task, key, level, turn)
SELECT queue, task, runs.key, lane, json_extract(new.value, '$[1]')
FROM json_each(?) AS new CROSS JOIN runs ON runs.id = json_extract(new.value, '$[0]') WHERE true
ON CONFLICT (queue, task, key, level) DO NOTHING;

-- name: lanes
-- One page of the lanes of a task, in order of turn.
SELECT turn, level, key FROM lanes
WHERE queue = ? AND task = ? AND (turn, level, key) > (?, ?, ?) ORDER BY turn, level, key LIMIT ?;

-- name: heads
-- The first runs of a lane.
SELECT id, wake_at FROM runs INDEXED BY runs_waiting
WHERE queue = ? AND task = ? AND key = ? AND lane = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL
ORDER BY wake_at, id LIMIT ?;

-- name: waiting_runs
-- Runs without a driver, by number.
SELECT id, uid, name, task, target, inputs, inputs_hash, created_at, reuse, status, token, worker, started_at, ended_at,
       result, value, crashes, mark, wake_at, cancel, cancel_until, tags, paused, queue, key, priority, carried
FROM runs WHERE id = ? AND status IN ('QUEUED', 'SLEEPING', 'WAITING') AND paused IS NULL;

-- name: set_lane_turn
-- Change the turn of a lane.
UPDATE lanes SET turn = ? WHERE queue = ? AND task = ? AND key = ? AND level = ?;

-- name: drop_lane
-- Remove a lane without waiting runs.
DELETE FROM lanes AS lane WHERE queue = ? AND task = ? AND key = ? AND level = ? AND NOT EXISTS (
    SELECT 1 FROM runs INDEXED BY runs_waiting
    WHERE runs.queue = lane.queue AND runs.task = lane.task AND runs.key = lane.key AND runs.lane = lane.level
      AND runs.status IN ('QUEUED', 'SLEEPING', 'WAITING') AND runs.paused IS NULL
);

-- name: first_start
-- The first start of a queue since a time.
SELECT number, at FROM starts WHERE queue = ? AND at >= ? ORDER BY at, number LIMIT 1;

-- name: last_start
-- The number of the last start of a queue.
SELECT number FROM starts WHERE queue = ? ORDER BY at DESC, number DESC LIMIT 1;

-- name: insert_start
-- Record a start, not before the start before it.
INSERT INTO starts (queue, at, number, wall)
SELECT ?1, max(?2, coalesce(max(at), 0)), coalesce(max(number), 0) + 1, ?3
FROM (SELECT at, number FROM starts WHERE queue = ?1 ORDER BY at DESC, number DESC LIMIT 1);

-- name: prune_starts
-- Remove the starts that no window holds any more.
DELETE FROM starts WHERE queue = ? AND at < ?;

-- name: rebase_starts
-- The machine has booted: convert times of starts since the last boot into times since this boot, by the wall clock.
UPDATE starts SET at = min(?1, ?1 + (wall - ?2));

-- name: holder_of_key
-- The newest run of a key that was not cancelled or aborted.
SELECT runs.name, runs.status, submissions.until FROM submissions JOIN runs ON runs.id = submissions.run
WHERE submissions.task = ? AND submissions.key = ? AND runs.status NOT IN ('CANCELLED', 'ABORTED', 'REMOVED')
ORDER BY submissions.run DESC LIMIT 1;

-- name: queued_of_key
-- The runs of a key that have not begun.
SELECT runs.id FROM submissions JOIN runs ON runs.id = submissions.run
WHERE submissions.task = ? AND submissions.key = ? AND runs.status = 'QUEUED' ORDER BY runs.id;

-- name: last_start_of_key
-- When a run of a key has begun last.
SELECT max(runs.started_at) FROM submissions JOIN runs ON runs.id = submissions.run
WHERE submissions.task = ? AND submissions.key = ?;

-- name: unfinished_of_queue
-- The unfinished runs of a queue, or of one key of the queue.
SELECT id, status, cancel FROM runs
WHERE queue = ? AND (? IS NULL OR key = ?) AND status IN ('QUEUED', 'RUNNING', 'SLEEPING', 'WAITING') ORDER BY id;

-- name: note_submission
-- Keep the key of a run, and the time by which the run has to begin.
INSERT INTO submissions (run, task, key, until, start_by) VALUES (?, ?, ?, ?, ?);

-- name: unbegun
-- The runs whose time to begin is over.
SELECT submissions.run, submissions.start_by, runs.status FROM submissions JOIN runs ON runs.id = submissions.run
WHERE submissions.start_by < ? ORDER BY submissions.start_by LIMIT ?;

-- name: start_by
-- The time by which a run has to begin.
SELECT start_by FROM submissions WHERE run = ?;

-- name: forget_start_by
-- The time to begin needs no further look.
UPDATE submissions SET start_by = NULL WHERE run = ?;

-- name: purge_submission
-- The submission of a removed run.
DELETE FROM submissions WHERE run = ?;

-- name: limit
-- A limit.
SELECT name, declared, override, ticket, uses FROM limits WHERE name = ?;

-- name: lock_limit
-- A limit, for a transaction that gives slots.
SELECT name, declared, override, ticket, uses FROM limits WHERE name = ?;

-- name: limits
-- All limits.
SELECT name, declared, override, ticket, uses FROM limits ORDER BY name;

-- name: limits_of
-- The limits that parked runs of these tasks wait for.
SELECT name, declared, override, ticket, uses FROM limits AS wanted
WHERE EXISTS (SELECT 1 FROM tickets INDEXED BY tickets_parked WHERE tickets.name = wanted.name AND task IN (SELECT value FROM json_each(?)) AND state = 1)
ORDER BY name;

-- name: declare_limit
-- Store the settings of a limit in the code; no row is written where they are known.
INSERT INTO limits (name, declared)
SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM limits WHERE name = ? AND declared = ?)
ON CONFLICT (name) DO UPDATE SET declared = excluded.declared;

-- name: ensure_limit
-- A limit that allows everything, where no code has declared the limit in this store.
INSERT INTO limits (name, declared) VALUES (?, '{}') ON CONFLICT (name) DO NOTHING;

-- name: override_limit
-- Change the settings of an operator.
UPDATE limits SET override = ? WHERE name = ?;

-- name: note_limit
-- Note the numbers of the newest ticket and use.
UPDATE limits SET ticket = ?, uses = ? WHERE name = ?;

-- name: limit_held
-- How many calls hold a slot of a limit.
SELECT count(*) FROM tickets AS ticket JOIN runs AS run ON run.id = ticket.run AND run.token = ticket.token
WHERE ticket.name = ? AND ticket.state = 2 AND run.status = 'RUNNING';

-- name: limit_waiting
-- How many calls wait for a slot of a limit.
SELECT count(*) FROM tickets AS ticket JOIN runs AS run ON run.id = ticket.run
WHERE ticket.name = ? AND ticket.state IN (0, 1, 3) AND run.status IN ('RUNNING', 'SLEEPING', 'WAITING');

-- name: waiting_tickets
-- One page of the tickets that wait in memory, in their order.
SELECT ticket.number, ticket.run, ticket.cost, coalesce(run.token = ticket.token AND run.status = 'RUNNING', 0),
       run.status, run.paused
FROM tickets AS ticket LEFT JOIN runs AS run ON run.id = ticket.run
WHERE ticket.name = ? AND ticket.state = 0 AND ticket.number > ? ORDER BY ticket.number LIMIT ?;

-- name: parked_tickets
-- One page of the tickets of parked runs of a task, in their order.
SELECT ticket.number, ticket.run, ticket.cost, 0, run.status, run.paused
FROM tickets AS ticket LEFT JOIN runs AS run ON run.id = ticket.run
WHERE ticket.name = ? AND ticket.task = ? AND ticket.state = 1 AND ticket.number > ? ORDER BY ticket.number LIMIT ?;

-- name: called_tickets
-- How many runs were made due since a time and have not asked again.
SELECT count(*) FROM tickets WHERE name = ? AND state = 3 AND at > ?;

-- name: known_ticket
-- The number of the ticket of a call.
SELECT number FROM tickets WHERE run = ? AND name = ? AND place = ?;

-- name: insert_ticket
-- A ticket that waits in memory.
INSERT INTO tickets (name, number, run, token, place, task, cost, state, since)
VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?);

-- name: repeat_ticket
-- The call of a ticket asks again.
UPDATE tickets SET token = ?, cost = ?, state = 0, used = NULL WHERE name = ? AND number = ?;

-- name: hold_ticket
-- A ticket takes a slot.
UPDATE tickets SET state = 2, used = ? WHERE name = ? AND number = ?;

-- name: call_ticket
-- The run of a ticket is made due.
UPDATE tickets SET state = 3, at = ? WHERE name = ? AND number = ?;

-- name: park_ticket
-- The run of a ticket is parked.
UPDATE tickets SET state = 1 WHERE name = ? AND number = ? AND run = ? AND token = ?;

-- name: drop_ticket
-- Remove a ticket.
DELETE FROM tickets WHERE name = ? AND number = ?;

-- name: free_ticket
-- Remove a ticket that was given under a token.
DELETE FROM tickets WHERE name = ? AND number = ? AND run = ? AND token = ?;

-- name: sweep_tickets
-- The tickets that hold no slot any more, because the claim has ended, wait to be asked for again.
UPDATE tickets AS ticket SET state = 4 WHERE name = ? AND state = 2 AND NOT EXISTS (
    SELECT 1 FROM runs AS run WHERE run.id = ticket.run AND run.token = ticket.token AND run.status = 'RUNNING'
);

-- name: purge_tickets
-- The tickets of a removed run.
DELETE FROM tickets WHERE run = ?;

-- name: someone_waits
-- Whether a call waits for a limit.
SELECT 1 FROM tickets WHERE name = ? AND state IN (0, 1) LIMIT 1;

-- name: tickets_of
-- The tickets of runs.
SELECT run, name, place, number, state FROM tickets WHERE run IN (SELECT value FROM json_each(?));

-- name: waits_parked
-- Whether a parked run waits for a limit.
SELECT 1 FROM tickets WHERE run = ? AND state IN (1, 3) LIMIT 1;

-- name: queued_tickets
-- The calls of a run that wait for a slot, with the number of calls in front.
SELECT mine.name, mine.since, (
    SELECT count(*) FROM tickets AS other JOIN runs AS run ON run.id = other.run
    WHERE other.name = mine.name AND other.state IN (0, 1, 3) AND other.number < mine.number
      AND run.status IN ('RUNNING', 'SLEEPING', 'WAITING')
)
FROM tickets AS mine WHERE mine.run = ? AND mine.state IN (0, 1, 3) ORDER BY mine.name, mine.number;

-- name: first_use
-- The first use of a limit since a time.
SELECT number, at, cost FROM uses WHERE name = ? AND at >= ? ORDER BY at, number LIMIT 1;

-- name: spent
-- The sum of the costs since a time.
SELECT coalesce(sum(cost), 0) FROM uses WHERE name = ? AND at >= ?;

-- name: uses
-- One page of the uses of a limit, in order.
SELECT number, at, cost FROM uses WHERE name = ? AND (at, number) > (?, ?) ORDER BY at, number LIMIT ?;

-- name: report_cost
-- Correct the cost of the use of a ticket.
UPDATE uses SET cost = ? WHERE name = ? AND number = (
    SELECT used FROM tickets WHERE name = ? AND number = ? AND token = ?
);

-- name: prune_uses
-- Remove the uses that no window holds any more.
DELETE FROM uses WHERE name = ? AND at < ?;

-- name: insert_use
-- Record a use, not before the use before it.
INSERT INTO uses (name, number, cost, at, wall)
SELECT ?1, ?2, ?3, max(?4, coalesce((SELECT max(at) FROM uses WHERE name = ?1), 0)), ?5;

-- name: held_tickets
-- The tickets of limits that hold a slot.
SELECT ticket.name, ticket.number, ticket.token
FROM tickets AS ticket JOIN runs AS run ON run.id = ticket.run AND run.token = ticket.token
WHERE ticket.name IN (SELECT value FROM json_each(?)) AND ticket.state = 2 AND run.status = 'RUNNING';

-- name: rebase_uses
-- The machine has booted: convert times of uses since the last boot into times since this boot, by the wall clock.
UPDATE uses SET at = min(?1, ?1 + (wall - ?2));

-- name: subscriptions
-- The receivers of events.
SELECT name, kinds, task, hook, filter, created_at FROM subscriptions ORDER BY name;

-- name: put_subscription
-- Keep a receiver, or change its settings.
INSERT INTO subscriptions (name, kinds, task, hook, filter, created_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET kinds = excluded.kinds, task = excluded.task, hook = excluded.hook, filter = excluded.filter;

-- name: drop_subscription
-- Forget a receiver.
DELETE FROM subscriptions WHERE name = ? RETURNING name;

-- name: drop_notices_of
-- Forget the events for a receiver.
DELETE FROM notices WHERE subscription = ?;

-- name: note_event
-- Write an event for each receiver of its kind, unless the receiver has the event.
INSERT INTO notices (subscription, run, kind, cause, at, status, detail, due)
SELECT receiver.name, runs.id, ?, ?, ?, runs.status, ?, ?
FROM subscriptions AS receiver JOIN runs AS runs ON runs.id = ?
WHERE instr(receiver.kinds, ?) > 0 AND (receiver.task IS NULL OR receiver.task = runs.task)
ON CONFLICT DO NOTHING RETURNING id;

-- name: due_notice
-- The event for a receiver that is due longest.
SELECT id FROM notices WHERE subscription = ? AND state = 0 AND due <= ? ORDER BY due, id LIMIT 1;

-- name: first_due_notice
-- When the first event for a receiver is due.
SELECT min(due) FROM notices WHERE subscription = ? AND state = 0;

-- name: lease_notice
-- Keep other processes from an event until that time.
UPDATE notices SET token = ?, due = ? WHERE id = ?;

-- name: settle_notice
-- Write what became of an attempt to deliver, if the lease still holds.
UPDATE notices SET state = ?, due = ?, attempts = attempts + ?, error = ?, token = NULL
WHERE id = ? AND token = ? AND state = 0 RETURNING id;

-- name: revive_notices
-- Deliver the events for a receiver again that were given up.
UPDATE notices SET state = 0, due = ?, attempts = 0, token = NULL WHERE subscription = ? AND state = 2 RETURNING id;

-- name: notice
-- An event.
SELECT id, subscription, run, kind, cause, at, status, detail, state, due, attempts, error FROM notices WHERE id = ?;

-- name: notices
-- The newest events.
SELECT id, subscription, run, kind, cause, at, status, detail, state, due, attempts, error FROM notices
ORDER BY id DESC LIMIT ?;

-- name: notice_counts
-- How many events each receiver has in each state, and since when the oldest of them is there.
SELECT subscription, state, count(*), min(at) FROM notices GROUP BY subscription, state ORDER BY subscription, state;

-- name: noted_of_task
-- When an event of a kind and a cause was noted last for a run of the task.
SELECT max(notices.at) FROM notices AS notices JOIN runs AS runs ON runs.id = notices.run
WHERE notices.kind = ? AND notices.cause = ? AND runs.task = ?;

-- name: purge_notices
-- The events of a removed run.
DELETE FROM notices WHERE run = ?;
