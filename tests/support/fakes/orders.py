"""Orders to a worker or a steward that a test gives, in place of a master."""

from __future__ import annotations

from reproq_prefork.unix.orders import Orders


class ScriptedOrders(Orders):
    """Orders that a test gives."""

    def __init__(self) -> None:
        self.drain = self.quit = self.master_is_gone = False

    @property
    def fds(self) -> tuple[int, ...]:
        return ()

    def read(self) -> None:
        pass
