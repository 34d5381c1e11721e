-- What each worker serves.

-- The tasks and places of a worker, as JSON (`perdure.core.ground.model.Serving`); empty: the process serves none.
ALTER TABLE perdure.workers ADD COLUMN serves text NOT NULL DEFAULT '';
