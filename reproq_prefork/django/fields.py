"""How the columns of `task_runs` are read into a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from reproq_prefork.store.json_columns import read_json

if TYPE_CHECKING:
    _Field = models.Field[Any, Any]
    _FloatField = models.FloatField[Any, Any]
else:  # generic for the type checker only
    _Field = models.Field
    _FloatField = models.FloatField


class StoredJSONField(models.JSONField):
    """jsonb, read as `get_run` reads it: no number changes its value, and nothing that is stored can fail to load.

    What is more than a spec may hold (numbers of thousands of digits, a hundred levels) is an UnreadableJson.
    """

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return read_json(value) if isinstance(value, str) else value


class RealField(_FloatField):
    """PostgreSQL's `real`."""

    def db_type(self, connection: Any) -> str:
        return "real"


class TextListField(_Field):
    """`text[]`, as a list of strings; `ArrayField` would need `django.contrib.postgres` to be installed."""

    def db_type(self, connection: Any) -> str:
        return "text[]"
