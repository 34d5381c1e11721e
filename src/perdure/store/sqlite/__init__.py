"""The store in one SQLite file: the port, the file and its connections, error messages, SQL."""

from .store import SQLiteStore as SQLiteStore
