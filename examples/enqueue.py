"""Enqueue from Python, in the transaction that writes what the task is about.

    python3 examples/enqueue.py

It needs DATABASE_URL, and a database where `reproq-prefork migrate` has been run.
"""

import os

import psycopg

from reproq_prefork import enqueue

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("create temporary table documents (file text primary key)")

    # The document and the task that counts its words: both are there once this is committed.
    with connection.transaction():
        connection.execute("insert into documents (file) values (%s)", ["README.md"])
        run = enqueue(connection, {"file": "README.md"}, max_attempts=5)
    print("enqueued", run.id, run.spec_hash)

    # And neither is where it is rolled back, as an exception would do it.
    with connection.transaction(force_rollback=True):
        connection.execute("insert into documents (file) values (%s)", ["CHANGELOG.md"])
        lost = enqueue(connection, {"file": "CHANGELOG.md"})
    print("rolled back", lost.id, lost.spec_hash)
