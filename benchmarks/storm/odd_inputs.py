"""Rows and messages that a plain producer can write and that a worker cannot read or use, for each contestant.

Each kind is tried on each contestant, as far as its queue has a place for it: a time out of range, a payload that
does not decode, a task that does not exist, a number out of range.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BEFORE_CHRIST = "4000-01-01 BC"  # psycopg has no datetime for it
MINUS_INFINITY = "-infinity"
# jsonb keeps it; json.loads raises ValueError above 4,300 digits.
LONG_NUMBER = "1" * 5_000
DEPTH = 6_000  # json.loads raises RecursionError
DEEP = "[" * DEPTH + "]" * DEPTH
LONG_NUMBER_SHOWN = "a number of 5,000 digits"
MARK = "odd-message"  # what each message of ours has in its text, so that it is found again
PEER_TASKS = "benchmarks.peers.programs.django_site_tasks"


@dataclass(frozen=True)
class OddInput:
    """Either columns, in place of those of a good row, or a whole message."""

    what: str  # as the table shows it
    columns: Mapping[str, str] = field(default_factory=dict)
    message: str = ""


@dataclass(frozen=True)
class OddRows:
    """What can be put into a table: a good row, and what is odd about others. All values are literals."""

    table: str
    good: Mapping[str, str]
    inputs: Sequence[OddInput]
    also: str = ""  # the rights that an INSERT needs beyond that: its triggers act by those of the producer
    own_id: bool = False  # the producer makes the id, a UUID


def _our_payload(task: str, arguments: str) -> dict[str, str]:
    text = f'{{"args":[{arguments}],"kwargs":{{}},"task":"benchmarks.subject.tasks.{task}","v":1}}'
    return {"payload": text, "spec_hash": hashlib.sha256(text.encode()).hexdigest()}


OURS = OddRows(
    table="task_runs",
    good=_our_payload("body", "1000"),
    inputs=(
        OddInput("`run_after` 4000 BC", {"run_after": BEFORE_CHRIST}),
        OddInput("`run_after` -infinity", {"run_after": MINUS_INFINITY}),
        OddInput(f"`payload` with {LONG_NUMBER_SHOWN}", _our_payload("body", LONG_NUMBER)),
        OddInput("`payload` 7", {"payload": "7"}),
        OddInput("a task that does not exist", _our_payload("nothing", "1000")),
        OddInput("`claims` 2^63 - 1", {"claims": str(2**63 - 1)}),
        OddInput(f"`payload` nested {DEPTH:,} deep", _our_payload("body", DEEP)),
        OddInput("`timeout_seconds` 1e-45", {"timeout_seconds": "1e-45"}),
    ),
)

PEERS: Mapping[str, OddRows] = {
    "django_ox": OddRows(
        table="django_ox_oxtask",
        good={
            "task_path": f"{PEER_TASKS}.body",
            "args": "[1000]",
            "kwargs": "{}",
            "queue_name": "default",
            "priority": "0",
            "takes_context": "false",
            "backend_name": "default",
            "status": "READY",
            "attempts": "0",
            "max_attempts": "3",
            "errors": "[]",
            "worker_ids": "[]",
            "enqueued_at": "now",
            "lease_epoch": "0",
        },
        inputs=(
            OddInput("`run_after` 4000 BC", {"run_after": BEFORE_CHRIST}),
            OddInput("`run_after` -infinity", {"run_after": MINUS_INFINITY}),
            OddInput(f"`args` with {LONG_NUMBER_SHOWN}", {"args": f"[{LONG_NUMBER}]"}),
            OddInput("`args` 7", {"args": "7"}),
            OddInput("a task that does not exist", {"task_path": f"{PEER_TASKS}.nothing"}),
            OddInput("`lease_epoch` 2^63 - 1", {"lease_epoch": str(2**63 - 1)}),
            OddInput("`attempts` 2^15 - 1", {"attempts": str(2**15 - 1)}),
        ),
        own_id=True,
    ),
    "django_tasks_db": OddRows(
        table="django_tasks_database_dbtaskresult",
        good={
            "status": "READY",
            "enqueued_at": "now",
            "args_kwargs": '{"args": [1000], "kwargs": {}}',
            "priority": "0",
            "task_path": f"{PEER_TASKS}.body",
            "worker_ids": "[]",
            "queue_name": "default",
            "backend_name": "default",
            "run_after": "9999-01-01 UTC",  # what it writes for "at once"
            "exception_class_path": "",
            "traceback": "",
        },
        inputs=(
            OddInput("`run_after` 4000 BC", {"run_after": BEFORE_CHRIST}),
            OddInput("`run_after` -infinity", {"run_after": MINUS_INFINITY}),
            OddInput(
                f"`args_kwargs` with {LONG_NUMBER_SHOWN}",
                {"args_kwargs": f'{{"args": [{LONG_NUMBER}], "kwargs": {{}}}}'},
            ),
            OddInput("`args_kwargs` 7", {"args_kwargs": "7"}),
            OddInput("`worker_ids` 7", {"worker_ids": "7"}),
            OddInput("a task that does not exist", {"task_path": f"{PEER_TASKS}.nothing"}),
        ),
        own_id=True,
    ),
    "procrastinate": OddRows(
        table="procrastinate_jobs",
        good={"queue_name": "default", "task_name": "body", "args": '{"number": 1000}'},
        inputs=(
            OddInput("`scheduled_at` 4000 BC", {"scheduled_at": BEFORE_CHRIST}),
            OddInput("`scheduled_at` -infinity", {"scheduled_at": MINUS_INFINITY}),
            OddInput(f"`args` with {LONG_NUMBER_SHOWN}", {"args": f'{{"number": {LONG_NUMBER}}}'}),
            OddInput("`args` 7", {"args": "7"}),
            OddInput("a task that does not exist", {"task_name": "nothing"}),
            OddInput("`attempts` 2^31 - 1", {"attempts": str(2**31 - 1)}),
        ),
        also="""
            grant usage on sequence procrastinate_jobs_id_seq, procrastinate_events_id_seq to plain_producer;
            grant insert on procrastinate_events to plain_producer
        """,
    ),
}


def _message(
    *,
    task: object = "benchmarks.peers.programs.celery.body",
    argument: str = "1000",
    body: str | None = None,
    **headers: object,
) -> str:
    """A message as Celery writes it to Redis, by its protocol 2."""
    arguments = f'[[{argument}], {{}}, {{"callbacks": null, "errbacks": null, "chain": null, "chord": null}}]'
    return json.dumps(
        {
            "body": body or base64.b64encode(arguments.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": task,
                "id": MARK,
                "root_id": MARK,
                "parent_id": None,
                "group": None,
                "eta": None,
                "expires": None,
                "retries": 0,
                "timelimit": [None, None],
                "argsrepr": "",
                "kwargsrepr": "",
                **headers,
            },
            "properties": {
                "correlation_id": MARK,
                "reply_to": MARK,
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": "celery"},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": MARK,
            },
        }
    )


MESSAGES: Mapping[str, Sequence[OddInput]] = {
    "celery": (
        OddInput("a message that is not JSON", message=MARK),
        OddInput("a `body` that is not JSON", message=_message(body=base64.b64encode(b"{").decode())),
        OddInput("a `body` that is not base64", message=_message(body="a")),
        OddInput(f"an argument with {LONG_NUMBER_SHOWN}", message=_message(argument=LONG_NUMBER)),
        OddInput("a task that does not exist", message=_message(task="nothing")),
        OddInput("`eta` 4000 BC", message=_message(eta="-4000-01-01T00:00:00+00:00")),
        OddInput("`timelimit` 7", message=_message(timelimit=7)),
        OddInput("`task` []", message=_message(task=[])),
    )
}
