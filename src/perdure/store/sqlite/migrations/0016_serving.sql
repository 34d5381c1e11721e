-- What each worker serves.

-- The tasks and places of a worker, as JSON (`perdure.core.ground.model.Serving`); empty: the process serves none.
ALTER TABLE workers ADD COLUMN serves TEXT NOT NULL DEFAULT '';
