"""Enqueue from Python, in the transaction that writes the data that the task needs.

    python3 examples/enqueue.py

It needs DATABASE_URL, and a database where `reproq-prefork migrate` has been run.
"""

import os

import psycopg

from reproq_prefork import enqueue

with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    connection.execute("create temporary table documents (file text primary key)")

    # The document, and the task that counts its words. Both are saved when this transaction commits.
    with connection.transaction():
        connection.execute("insert into documents (file) values (%s)", ["README.md"])
        run = enqueue(connection, {"file": "README.md"}, max_attempts=5)
    print("enqueued", run.id, run.spec_hash)

    # A rollback, as after an exception, saves neither of them.
    with connection.transaction(force_rollback=True):
        connection.execute("insert into documents (file) values (%s)", ["CHANGELOG.md"])
        lost = enqueue(connection, {"file": "CHANGELOG.md"})
    print("rolled back", lost.id, lost.spec_hash)
