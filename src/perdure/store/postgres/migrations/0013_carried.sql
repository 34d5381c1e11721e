-- The submitter's context that goes with a run: `ground.carrying` explains the bytes.

ALTER TABLE perdure.runs ADD COLUMN carried bytea;
