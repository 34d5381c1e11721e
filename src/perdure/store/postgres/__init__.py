"""The store in a Postgres database: the port, connections that may break, the standing session, error messages, SQL."""

from .store import PostgresStore as PostgresStore
