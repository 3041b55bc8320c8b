"""Reads the columns of `task_runs` into a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.db import models

from reproq_prefork.model.stored_values import in_zone, read_moment, read_texts
from reproq_prefork.store.json_columns import read_json

if TYPE_CHECKING:
    _Field = models.Field[Any, Any]
    _FloatField = models.FloatField[Any, Any]
    _DateTimeField = models.DateTimeField[Any, Any]
else:  # generic for the type checker only
    _Field = models.Field
    _FloatField = models.FloatField
    _DateTimeField = models.DateTimeField


class StoredJSONField(models.JSONField):
    """jsonb, read as `get_run` reads it: no number changes its value, and every stored value can be loaded.

    A value that exceeds the limits of a spec (numbers of thousands of digits, a hundred levels) is an
    UnreadableJson.
    """

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return read_json(value) if isinstance(value, str) else value


class StoredDateTimeField(_DateTimeField):
    """timestamptz, read as `get_run` reads it: a time that no datetime can hold is a `stored_values.OutOfRange`.

    It is selected as JSON, since the driver would fail for the whole page on one such value.
    """

    def deconstruct(self) -> Any:
        """For migrations it is a DateTimeField: the column is the same."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        return _as_json(compiler, sql, params)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return (
            in_zone(read_moment(json.loads(value)), connection.timezone) if isinstance(value, str) else value
        )


class RealField(_FloatField):
    """PostgreSQL's `real`."""

    def db_type(self, connection: Any) -> str:
        return "real"


class TextListField(_Field):
    """`text[]`, as a list of strings without nulls, whatever its dimensions are.

    `ArrayField` would need `django.contrib.postgres` to be installed.
    """

    def db_type(self, connection: Any) -> str:
        return "text[]"

    def select_format(self, compiler: Any, sql: str, params: Any) -> Any:
        return _as_json(compiler, sql, params)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return list(read_texts(value) or ()) if isinstance(value, str) else value


def _as_json(compiler: Any, sql: str, params: Any) -> Any:
    """A column in the result is read as JSON. In a subquery, where it is compared, it is unchanged."""
    return (sql, params) if compiler.query.subquery else (f"to_json({sql})::text", params)
