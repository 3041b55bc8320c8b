"""For an insert with a unique key that is held: the holder is looked up, but may give the key back meanwhile."""

from __future__ import annotations

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.text.printable import quoted

MAX_KEY_TRIES = 20


class KeyChangesHands(ReproqError):
    """Each time another run held the key, and finished before it could be found."""

    exit_status = ExitStatus.CONFLICT

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The unique key {quoted(key)} was taken and given back {MAX_KEY_TRIES} times in a row; try again."
        )
