"""The database: one method per statement, one file per statement (`sql/`). Nothing else imports psycopg.

May import `settings`, `model` and what is below them.
"""
