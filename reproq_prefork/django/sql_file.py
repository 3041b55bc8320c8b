"""A Django migration that runs one of the SQL files: so the schema is written once, for all who apply it."""

from __future__ import annotations

from typing import Any

from django.db import router
from django.db.migrations.operations.base import Operation

from reproq_prefork.django.project.database import own_aliases
from reproq_prefork.store.migration_files import Migration, known_migrations


class ApplySqlFile(Operation):
    """Runs `NNNN_name.up.sql` unchanged; backwards, `NNNN_name.down.sql`.

    Only in a database that one of our backends in `TASKS` uses, and for which the routers allow our models. In any
    other database the tables would be empty, or would get runs that no worker ever sees. The files themselves
    change nothing if psql or `reproq-prefork migrate` has already applied them.
    """

    reversible = True
    reduces_to_sql = True
    atomic = True

    def __init__(self, label: str) -> None:
        self.label = label

    def state_forwards(self, app_label: str, state: Any) -> None:
        pass

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if _is_for(schema_editor.connection, app_label):
            _run(schema_editor, self._file.up)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if _is_for(schema_editor.connection, app_label):
            _run(schema_editor, self._file.down)

    def describe(self) -> str:
        return f"Runs {self.label}.up.sql"

    @property
    def migration_name_fragment(self) -> str:
        return self.label

    @property
    def _file(self) -> Migration:
        for migration in known_migrations():
            if migration.label == self.label:
                return migration
        raise FileNotFoundError(f"{self.label}.up.sql is missing: this installation is incomplete")


def _is_for(connection: Any, app_label: str) -> bool:
    return (
        connection.vendor == "postgresql"
        and connection.alias in own_aliases()
        and router.allow_migrate(connection.alias, app_label, model_name="taskrun")
    )


def _run(schema_editor: Any, file_text: str) -> None:
    # Without parameters nothing is interpolated, so a percent sign in the file is unchanged.
    schema_editor.execute(file_text, params=None)
