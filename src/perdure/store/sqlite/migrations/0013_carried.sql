-- The submitter's context that goes with a run: `ground.carrying` explains the bytes.

ALTER TABLE runs ADD COLUMN carried BLOB;
