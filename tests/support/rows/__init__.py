"""Rows of the tables as other programs leave them, and the stores that a worker and a steward use."""
