"""Servers and databases for a test, what lies between them and a client, and what goes wrong in them."""
