"""When an insert meets a unique key that is held: who holds it is looked up, unless it is given back meanwhile."""

from __future__ import annotations

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.text.printable import quoted

MAX_KEY_TRIES = 20


class KeyChangesHands(ReproqError):
    """Each time somebody else held the key, and had finished before it could be seen who."""

    exit_status = ExitStatus.CONFLICT

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The unique key {quoted(key)} was taken and given back {MAX_KEY_TRIES} times in a row; try again."
        )
