"""How many examples Hypothesis tries, by the profile that a run of the tests chooses.

| profile | who chooses it | |
|---|---|---|
| default | `make test`, CI, pytest without an option | all examples |
| quick | `make unit` | a quarter of them |
| first-failure | `make mutants` | all of them; a failure is not made smaller |

A test that sets a number of its own says `max_examples=examples(300)`, so that a profile changes it too.
"""

from __future__ import annotations

from hypothesis import Phase, settings

_USUAL = 100  # Hypothesis's own default


def register_profiles() -> None:
    """Call it before Hypothesis reads `--hypothesis-profile`: while conftest.py is imported."""
    settings.register_profile("quick", max_examples=_USUAL // 4)
    settings.register_profile("first-failure", phases=[Phase.explicit, Phase.generate])


def examples(full: int) -> int:
    """`full`, or the same part of it that the profile takes of the usual number."""
    return max(1, full * settings().max_examples // _USUAL)
