"""A prefork task worker for PostgreSQL: one master, N forked workers, one table."""

__version__ = "0.1.0"
