"""`File` and `Dir` behind `perdure.io`: `reference` (the parts in common), `remote` (URLs), `file`, `folder`."""
