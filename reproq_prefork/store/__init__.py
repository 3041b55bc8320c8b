"""The only importer of psycopg. One method per statement, one file per statement (`sql/`)."""
