"""Which of Django's own tests are not run on our backend, each with its reason. Nothing else is skipped.

`test_custom_backend.py` is not among those that are run (`STANDS_FOR`): it brings its own backends.
"""

from __future__ import annotations

_IMMEDIATE = "about the ImmediateBackend itself: "

SKIPS = {
    "DummyBackendTestCase.test_refresh_result": (
        "about the DummyBackend itself: it changes the result that is kept in the memory of the process"
    ),
    "DummyBackendTestCase.test_refresh_result_async": (
        "about the DummyBackend itself: it changes the result that is kept in the memory of the process"
    ),
    "ImmediateBackendTestCase.test_throws_keyboard_interrupt": (
        _IMMEDIATE + "the interrupt reaches the caller, for it was the caller who ran the task"
    ),
    "ImmediateBackendTestCase.test_cannot_get_result": _IMMEDIATE + "it keeps no results",
    "ImmediateBackendTestCase.test_cannot_refresh_result": _IMMEDIATE + "it keeps no results",
    "ImmediateBackendTestCase.test_cannot_pass_run_after": _IMMEDIATE + "it knows no later",
    "ImmediateBackendTransactionTestCase.test_doesnt_wait_until_transaction_commit_by_default": (
        _IMMEDIATE
        + "it runs a task within the transaction that enqueues it; a worker sees it once that commits"
    ),
}
