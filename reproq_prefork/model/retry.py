"""How long a failed run waits before its next attempt."""

from __future__ import annotations

# 2^64 times any base worth setting is past every cap; beyond it a float would overflow.
_MAX_DOUBLINGS = 64


def next_delay_s(attempt: int, base_s: float, max_s: float, random: float) -> float:
    """The seconds to wait after attempt number `attempt` (from 1) failed; `random` is drawn from [0, 1).

    Exponential backoff with full jitter: the ceiling doubles with each attempt, from `base_s` up to
    `max_s`, and the delay is drawn evenly from the whole range below it. Marc Brooker's comparison on the
    AWS architecture blog ("Exponential Backoff And Jitter") found that spreading over the whole range,
    rather than jittering around the ceiling, gives a crowd that failed together the fewest collisions
    and the least work; the price is that a single delay may be near zero.
    """
    if attempt < 1:
        raise ValueError(f"attempts count from 1, not {attempt}")
    return random * min(max_s, base_s * 2.0 ** min(attempt - 1, _MAX_DOUBLINGS))
