"""The only importer of psycopg: a method a statement, a file a statement (`sql/`)."""
