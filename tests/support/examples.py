"""How many examples Hypothesis tries, by the profile that a run of the tests chooses.

| profile | who chooses it | |
|---|---|---|
| full | `make test`, CI, pytest without an option | all examples |
| quick | `make unit` | a quarter of them |
| first-failure | `make mutants` | all of them; a failure is not made smaller |

A test that sets a number of its own says `max_examples=examples(300)`, so that a profile changes it too.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

_USUAL = 100  # Hypothesis's own default


def register_profiles() -> None:
    """Call it before Hypothesis reads `--hypothesis-profile`: while conftest.py is imported."""
    # Generation is slow in a fresh clone, where Hypothesis makes its tables, and on a busy machine: not a failure.
    full = settings(settings(), suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("full", full)
    settings.register_profile("quick", full, max_examples=_USUAL // 4)
    settings.register_profile("first-failure", full, phases=[Phase.explicit, Phase.generate])
    settings.load_profile("full")


def examples(full: int) -> int:
    """`full`, or the same part of it that the profile takes of the usual number."""
    return max(1, full * settings().max_examples // _USUAL)
