"""A spec: what a task *is*, as an immutable JSON document named by its SHA-256.

The name is the same for ever, on every machine and in every language: `docs/spec-hash.md`. May
import `text` and errors.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import Json, SpecError

__all__ = ["PYTHON_TASK_VERSION", "Json", "Spec", "SpecError", "canonical_json", "parse_json", "spec_hash"]

PYTHON_TASK_VERSION = 1
"""The `v` of a Python task's payload. Another number would give the same call another hash."""


def spec_hash(value: object) -> str:
    """SHA-256 of `canonical_json(value)` in UTF-8: 64 lower-case hex digits. Raises SpecError as it does."""
    return _sha256(canonical_json(value))


def _sha256(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Spec:
    """A payload, its canonical text and the hash of that text. Two specs are equal if their hashes are.

    `payload` is the object that was given, not a copy. If somebody changes it later, it is no longer this spec, so
    store and send `canonical`. If a text was parsed, `payload` has Decimals where JSON has a fraction or an
    exponent. The repr shows only the hash, since arguments may be secret.
    """

    payload: Json = field(compare=False, repr=False)
    canonical: str = field(compare=False, repr=False)
    hash: str

    @classmethod
    def of(cls, payload: object) -> "Spec":
        """The spec of a JSON value. Raises SpecError for a value that `canonical_json` refuses."""
        canonical = canonical_json(payload)
        return cls(cast(Json, payload), canonical, _sha256(canonical))

    @classmethod
    def parse(cls, text: str | bytes) -> "Spec":
        """The spec of a JSON text, for example from a jsonb column. Raises SpecError as `parse_json` does."""
        return cls.of(parse_json(text))

    @classmethod
    def python_task(cls, task: str, args: Sequence[object], kwargs: Mapping[str, object]) -> "Spec":
        """The spec of a call: `task` is the dotted path of the function.

        Raises SpecError for arguments that are not JSON, with paths such as `args[0].name`.
        """
        if not isinstance(task, str) or not task:  # type: ignore[redundant-expr]
            raise SpecError("task", "a function's dotted path is needed, such as shop.tasks.send_invoice")
        if isinstance(args, (str, bytes)):
            raise SpecError("args", "a list of arguments is needed; for one string send [string]")
        return cls.of({"v": PYTHON_TASK_VERSION, "task": task, "args": list(args), "kwargs": dict(kwargs)})
