"""What a jsonb column holds, as Python values that hash to the same name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reproq_prefork.json_rules import SpecError
from reproq_prefork.json_values import with_floats
from reproq_prefork.strict_json import parse_json


@dataclass(frozen=True, slots=True)
class UnreadableJson:
    """JSON that another program stored and that is more than a spec may hold: its text, and why."""

    text: str = ""
    why: str = ""


def read_json(text: str) -> Any:
    """The value of a jsonb column's text, or UnreadableJson; `spec_hash` of it is that of the text.

    Equal to what was enqueued; of its numbers, `json_values.with_floats` says what they are.
    """
    try:
        return with_floats(parse_json(text))
    except SpecError as error:
        return UnreadableJson(text, str(error))
