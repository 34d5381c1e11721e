"""Upkeep of whole stores, for the command line: removal of finished runs, moves to another store, checks, dumps."""
