"""What a worker has loaded before it forks: nothing that each forked task would load again."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.checkout import CHECKOUT

SITE = "benchmarks.subject"  # no app of it declares a task, so nothing else imports the backend
PROGRAM = f"""
import json, sys
from types import SimpleNamespace
from reproq_prefork.django.perform.runtime import DjangoRuntime
from reproq_prefork.executors.soft_stop import SignalledStop
from reproq_prefork.model.outcome import Success
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import RetryPolicy

runtime = DjangoRuntime(SimpleNamespace(
    django_settings="{SITE}.django_settings",
    django_backends={{"default": "default"}},
    allowed_task_modules=(),
    retry_policy=RetryPolicy(1.0, 1.0),
))
runtime.load()
path = "{SITE}.django_tasks.no_op"
payload = json.dumps({{"v": 1, "task": path, "args": [1], "kwargs": {{}}}})
run = ClaimedRun(1, 1, payload, "0" * 64, path, "default", 1, 1, None)
loaded = set(sys.modules)
report = runtime.perform(run, SignalledStop())
assert isinstance(report.outcome, Success), report
print(*sorted(name for name in sys.modules.keys() - loaded if name.startswith("reproq_prefork")))
"""


def test_the_first_task_of_a_site_imports_nothing_of_this_package() -> None:
    environ = {
        **os.environ,
        "DATABASE_URL": "postgresql://nobody:none@localhost:1/none",
        "PYTHONPATH": str(CHECKOUT),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
