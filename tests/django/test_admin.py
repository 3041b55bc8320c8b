"""The admin of task runs: what it shows and does, for whom, and that it never reads the whole table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext, setup_test_environment, teardown_test_environment

from reproq_prefork.django.models import TaskRun
from tests.support.django.runs import HASH, add_many, add_run, add_worker

LIST = "/admin/reproq_prefork/taskrun/"
QUEUES = f"{LIST}queues/"
WORKERS = "/admin/reproq_prefork/worker/"
HOSTILE = "<script>alert('x')</script>\u202e'; drop table task_runs; --%s %(a)s {{ x }}"


@pytest.fixture(scope="module", autouse=True)
def _rendered_contexts() -> Iterator[None]:
    """A response tells what its templates were given."""
    setup_test_environment()
    yield
    teardown_test_environment()


@pytest.fixture
def admin(django_transaction: None) -> Client:
    return somebody_who_may_do_everything()


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def somebody_who_may_do_everything() -> Client:
    return logged_in(User.objects.create_superuser("root"))


def somebody_who_may(*permissions: str) -> Client:
    user = User.objects.create_user("some", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return logged_in(user)


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return str(response.content.decode())


def page(run_id: int) -> str:
    return f"{LIST}{run_id}/change/"


def listed(client: Client, query: str = "") -> list[int]:
    return [run.pk for run in client.get(f"{LIST}?{query}").context["cl"].result_list]


def told(response: Any) -> list[str]:
    return [re.sub("<[^>]*>", "", str(message)) for message in response.context["messages"]]


def act(client: Client, action: str, *run_ids: int, **more: str) -> Any:
    return client.post(LIST, {"action": action, "_selected_action": run_ids, **more}, follow=True)


def statuses() -> dict[int, str]:
    return dict(TaskRun.objects.values_list("id", "status"))


# The list


def test_the_newest_run_is_listed_first(admin: Client) -> None:
    runs = [add_run(priority=priority) for priority in (3, 1, 2)]
    columns = range(-9, 10)
    assert [listed(admin, f"o={column}") for column in columns] == [runs[::-1]] * len(columns)


def test_a_row_shows_the_task_its_attempts_and_its_duration(admin: Client) -> None:
    add_run(
        status="FAILED",
        attempts=2,
        queue_name="mail",
        last_attempted_at="today",
        finished_at="today",
        priority=7,
    )
    add_run(task=None, payload={"order": HOSTILE})
    text = text_of(admin.get(LIST))
    for shown in ("shop.tasks.send_receipt", "mail", "Failed", "2 of 3", "0 ms", "ago", "&quot;order&quot;"):
        assert shown in text
    assert "<script>alert" not in text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=FAILED", ["failed"]),
        ("status=PENDING", ["mail", "other"]),
        ("queue=mail", ["mail"]),
        ("task=shop.tasks.other", ["other"]),
        ("age=hour", ["mail", "failed", "other"]),
        ("status=PENDING&queue=mail", ["mail"]),
        ("q=shop.tasks.o", ["other"]),
        ("q=SHOP", []),
        (f"q={'CD' * 32}", ["failed"]),
        (f"q={'ef' * 32}", []),
        ("q=99999999999999999999999", []),
        ("q=9999999999999999999", []),
        ("queue=%00", []),
        ("status=%00&task=%00", []),
        ("q=%25", []),
    ],
)
def test_runs_are_found_by_search_and_filters(query: str, expected: list[str], admin: Client) -> None:
    runs = {
        "mail": add_run(queue_name="mail"),
        "failed": add_run(status="FAILED", spec_hash="cd" * 32),
        "other": add_run(task="shop.tasks.other"),
        "old": add_run(status="SUCCESSFUL", enqueued_at="yesterday"),
    }
    assert sorted(listed(admin, query)) == sorted(runs[name] for name in expected)


def test_a_run_is_found_by_its_id(admin: Client) -> None:
    run_id = add_run()
    add_run()
    assert listed(admin, f"q={run_id}") == [run_id]


@pytest.mark.parametrize("text", [HOSTILE, "'", "\\", "%", "_", '"', "a" * 5000, "😀", "%00", "1e5", "-1"])
def test_no_search_breaks_the_page(text: str, admin: Client) -> None:
    add_run()
    for name in ("q", "queue", "task", "status", "age"):
        response = admin.get(LIST, {name: text})
        assert response.status_code == 200, (name, text)
        assert b"<script>alert" not in response.content


def test_a_search_with_a_nul_is_refused_politely(admin: Client) -> None:
    add_run()
    assert "Null characters are not allowed" in text_of(admin.get(LIST, {"q": "a\0b"}))


@pytest.mark.parametrize("lookup", ["errors__icontains=x", "payload__a=1", "unique_key=x", "spec_hash=x"])
def test_a_url_cannot_search_another_column(lookup: str, admin: Client) -> None:
    assert admin.get(f"{LIST}?{lookup}").status_code == 400


# How much it reads

PAGES = [
    LIST,
    f"{LIST}?status=FAILED",
    f"{LIST}?status=PENDING",
    f"{LIST}?queue=mail",
    f"{LIST}?task=a",
    f"{LIST}?age=hour",
    f"{LIST}?q=a.b",
    f"{LIST}?q={HASH}",
    f"{LIST}?q=7",
]


def read_by(client: Client, url: str) -> list[str]:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(url).status_code == 200
    return [query["sql"] for query in captured.captured_queries]


@pytest.mark.parametrize("url", PAGES)
def test_a_count_stops_at_the_length_of_the_list(url: str, admin: Client) -> None:
    add_run()
    counts = [sql for sql in read_by(admin, url) if "COUNT(" in sql.upper()]
    assert counts
    assert all("LIMIT 10001" in sql for sql in counts)


@pytest.mark.parametrize("url", PAGES)
def test_a_list_sends_as_many_queries_for_many_runs_as_for_few(url: str, admin: Client) -> None:
    add_run()
    few = len(read_by(admin, url))
    for _ in range(5):
        add_run(queue_name="mail")
    add_many(60)
    assert len(read_by(admin, url)) == few <= 12


@pytest.fixture
def many_runs(django_database: str) -> Client:
    admin = somebody_who_may_do_everything()
    add_many(20_000, spec_hash=HASH)
    add_many(130_000)
    with connection.cursor() as cursor:
        cursor.execute("vacuum analyze task_runs")
    return admin


def rows_read(sql: str) -> int:
    """How many rows of task_runs the server has looked at for one statement, by any way."""
    with connection.cursor() as cursor:
        cursor.execute(f"explain (analyze, format json) {sql}")
        ((plan,),) = cursor.fetchall()
    return sum(_rows_of(plan[0]["Plan"]))


def _rows_of(node: dict[str, Any]) -> Iterator[int]:
    if node.get("Relation Name") == "task_runs":
        removed = sum(value for name, value in node.items() if name.startswith("Rows Removed"))
        yield int((node["Actual Rows"] + removed) * node["Actual Loops"])
    for child in node.get("Plans", ()):
        yield from _rows_of(child)


def test_no_list_reads_the_whole_table(many_runs: Client) -> None:
    """Of 150,000 rows, a list reads the newest 100,000 at most, and once more to find them."""
    for url in PAGES:
        for sql in read_by(many_runs, url):
            if "task_runs" in sql and "pg_class" not in sql:
                assert rows_read(sql) <= 200_100, (url, sql)
    for url in (LIST, PAGES[2], PAGES[7], PAGES[8]):
        for sql in read_by(many_runs, url):
            if "task_runs" in sql and "pg_class" not in sql:
                assert rows_read(sql) <= 10_001, (url, sql)


def test_a_long_list_shows_an_estimate_of_its_length(many_runs: Client) -> None:
    text = text_of(many_runs.get(LIST))
    found = re.search(r"About ([\d,]+) runs; the newest 10,000 are listed", text)
    assert found is not None
    assert 100_000 < int(found[1].replace(",", "")) < 200_000
    assert "Searched only the newest 100,000 runs. More than 10,000 runs" in text_of(
        many_runs.get(f"{LIST}?status=SUCCESSFUL")
    )
    assert many_runs.get(f"{LIST}?p=200").status_code == 200
    assert many_runs.get(f"{LIST}?p=201").status_code == 302


def test_a_search_without_an_index_finds_only_the_newest_runs(many_runs: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("update task_runs set status = 'FAILED' where id in (1, 149999)")
        cursor.execute("update task_runs set status = 'PENDING' where id = 2")
    assert listed(many_runs, "status=FAILED") == [149999]
    assert listed(many_runs, "status=PENDING") == [2]


# One run


def test_a_page_shows_everything_about_a_run(admin: Client) -> None:
    run_id = add_run(
        status="FAILED",
        attempts=2,
        unique_key="receipt-1842",
        timeout_seconds=30,
        retry_base_seconds=1,
        retry_max_seconds=60,
        executor="fork",
        atomic=True,
        started_at="2026-01-01 10:00+00",
        finished_at="2026-01-01 10:01+00",
        last_attempted_at="2026-01-01 10:00:58+00",
        worker_ids=["w1", "w2"],
        metadata={"done": 40},
        errors=[
            {
                "attempt": 1,
                "kind": "timeout",
                "message": "it took longer than 30 s",
                "exit": "killed by signal 9 (SIGKILL)",
                "cpu_seconds": 29.5,
                "peak_rss_kib": 204800,
                "worker": "w1",
            },
            {
                "attempt": 2,
                "kind": "failed",
                "exception": "ValueError",
                "message": "no such order",
                "traceback": "Traceback (most recent call last):\n  File x",
                "output": "printed",
                "extra": {"a": [1]},
            },
        ],
    )
    text = text_of(admin.get(page(run_id)))
    for shown in (
        "receipt-1842",
        "30s",
        "1s to 1m",
        "fork",
        "its own transaction",
        "w1, w2",
        "Attempt 1: timeout",
        "it took longer than 30 s",
        "killed by signal 9",
        "29.5 s",
        "200 MiB",
        "ValueError: no such order",
        "Traceback (most recent call last):\n  File x",
        "printed",
        "&quot;done&quot;: 40",
        "the last took 2.0 s",
    ):
        assert shown in text, shown
    assert text.index("Attempt 2") < text.index("Attempt 1")


def test_a_page_links_the_runs_that_run_it_again(admin: Client) -> None:
    run_id = add_run(status="FAILED")
    replay = add_run(replay_of=run_id)
    assert page(replay) in text_of(admin.get(page(run_id)))
    assert page(run_id) in text_of(admin.get(page(replay)))


@pytest.mark.parametrize(
    "payload",
    [
        "[1e131071]",
        "[" * 3000 + "]" * 3000,
        "null",
        '"\\u202e"',
        "[9007199254740993, 0.1, 1e300, -0.0]",
        "{}",
    ],
)
def test_whatever_is_stored_can_be_shown(payload: str, admin: Client) -> None:
    run_id = add_run(task=None, payload=payload)
    text = text_of(admin.get(page(run_id)))
    assert "\u202e" not in text
    assert len(text) < 300_000
    assert str(run_id) in text_of(admin.get(LIST))


@pytest.mark.parametrize(
    "errors",
    [
        [HOSTILE, 7, None, [HOSTILE]],
        {"not": "a list"},
        [dict.fromkeys(("attempt", "kind", "exception", "message", "traceback", "worker", HOSTILE), HOSTILE)],
        [
            {
                "attempt": {},
                "kind": None,
                "message": 7,
                "cpu_seconds": "x",
                "peak_rss_kib": True,
                "traceback": [],
            }
        ],
        [{"message": "x" * 300_000}] * 40,
    ],
    ids=["junk", "object", "markup", "types", "much"],
)
def test_any_stored_errors_are_shown_as_text(errors: Any, admin: Client) -> None:
    run_id = add_run(
        task=HOSTILE,
        queue_name=HOSTILE,
        status="FAILED",
        errors=errors,
        unique_key=HOSTILE,
        metadata=HOSTILE,
        last_attempt=[HOSTILE],
    )
    text = text_of(admin.get(page(run_id)))
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert len(text) < 3_000_000


@pytest.mark.parametrize(("last", "shown"), [(20, 20), (5, 20)])
def test_attempts_without_a_kept_entry_are_counted_but_not_shown(
    admin: Client, last: int, shown: int
) -> None:
    entries: list[Any] = [{"kind": "failed", "attempt": n, "message": f"no {n}"} for n in range(1, 21 + last)]
    entries.insert(20, {"kind": "omitted", "omitted": 800, "message": "800 entries are left out here"})
    response = admin.get(page(add_run(status="FAILED", attempts=820 + last, errors=entries)))
    assert f"Only the last {shown} of {820 + last} entries are shown." in text_of(response)
    assert "left out" not in text_of(response)
    assert response.context["attempts"][0].title == f"Attempt {20 + last}"


def test_the_page_of_a_missing_run_redirects(admin: Client) -> None:
    for wrong in ("999", "abc", "9" * 30, "1_0"):
        assert admin.get(f"{LIST}{wrong}/change/").status_code == 302


def test_an_id_is_never_shown_with_separators(admin: Client, settings_with_separators: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("alter table task_runs alter id restart with 1234567")
    first = add_run()
    add_run(replay_of=first)
    for url in (LIST, page(first), page(first + 1)):
        assert "1,234,56" not in text_of(admin.get(url))


@pytest.fixture
def settings_with_separators() -> Iterator[None]:
    with override_settings(USE_THOUSAND_SEPARATOR=True):
        yield


# What can be done


def test_runs_are_queued_again_and_each_is_reported(admin: Client) -> None:
    one, two = add_run(status="FAILED"), add_run(status="FAILED", unique_key="k")
    holder = add_run(unique_key="k")
    response = act(admin, "requeue_runs", one, two)
    assert told(response) == [
        f"Run {one}: queued again as run {holder + 1}.",
        f"Run {two}: not queued again, since its unique key is held by run {holder}.",
    ]
    assert TaskRun.objects.get(pk=holder + 1).replay_of == one


def test_runs_are_queued_again_in_the_order_of_their_keys(admin: Client) -> None:
    """Atomic requests use one transaction: two users who choose the same runs must not deadlock."""
    keys = ["b", None, "a", "Z", None]
    runs = [add_run(status="FAILED", unique_key=key) for key in keys]
    act(admin, "requeue_runs", *runs)
    again = (
        TaskRun.objects.filter(replay_of__isnull=False).order_by("id").values_list("unique_key", "replay_of")
    )
    assert list(again) == [(None, runs[1]), (None, runs[4]), ("Z", runs[3]), ("a", runs[2]), ("b", runs[0])]


def test_runs_are_cancelled_and_each_is_reported(admin: Client) -> None:
    waiting, running, done = add_run(), add_run(status="RUNNING"), add_run(status="SUCCESSFUL")
    response = act(admin, "cancel_runs", waiting, running, done)
    assert told(response) == [
        f"Run {waiting}: cancelled.",
        f"Run {running}: asked to stop; its worker ends it.",
        f"Run {done}: not changed, since it has finished: SUCCESSFUL.",
    ]
    assert statuses() == {waiting: "CANCELLED", running: "RUNNING", done: "SUCCESSFUL"}
    assert TaskRun.objects.get(pk=running).cancel_requested_at is not None


def test_a_new_priority_is_asked_for_and_set_on_waiting_runs(admin: Client) -> None:
    waiting, done = add_run(), add_run(status="FAILED")
    assert "2 runs chosen" in text_of(act(admin, "change_priorities", waiting, done))
    assert TaskRun.objects.get(pk=waiting).priority == 0
    response = act(admin, "change_priorities", waiting, done, apply="yes", priority="9")
    assert sorted(told(response)) == [
        f"Run {waiting}: priority 9.",
        f"Run {done}: priority not changed, since the run is not waiting any more.",
    ]
    assert dict(TaskRun.objects.values_list("id", "priority")) == {waiting: 9, done: 0}


@pytest.mark.parametrize("priority", ["101", "-101", "x", "", "1e2"])
def test_a_priority_out_of_range_is_refused(priority: str, admin: Client) -> None:
    run_id = add_run()
    assert "errorlist" in text_of(act(admin, "change_priorities", run_id, apply="yes", priority=priority))
    admin.post(f"{LIST}{run_id}/priority/", {"priority": priority})
    assert TaskRun.objects.get(pk=run_id).priority == 0


def test_a_run_has_buttons_for_what_can_be_done(admin: Client) -> None:
    waiting, running, done = add_run(), add_run(status="RUNNING"), add_run(status="FAILED")
    buttons = {
        run_id: set(re.findall(rf"{run_id}/(requeue|cancel|priority)/", text_of(admin.get(page(run_id)))))
        for run_id in (waiting, running, done)
    }
    assert buttons == {
        waiting: {"requeue", "cancel", "priority"},
        running: {"requeue", "cancel"},
        done: {"requeue"},
    }
    assert told(admin.post(f"{LIST}{waiting}/priority/", {"priority": 5}, follow=True)) == [
        f"Run {waiting}: priority 5."
    ]
    assert told(admin.post(f"{LIST}{waiting}/cancel/", follow=True)) == [f"Run {waiting}: cancelled."]
    assert "queued again" in told(admin.post(f"{LIST}{done}/requeue/", follow=True))[0]


def test_an_action_is_recorded_in_the_history_of_the_run(admin: Client) -> None:
    run_id = add_run()
    admin.post(f"{LIST}{run_id}/cancel/")
    assert "Cancelled." in text_of(admin.get(f"{LIST}{run_id}/history/"))


def test_many_runs_are_reported_in_a_few_lines(admin: Client) -> None:
    response = act(admin, "cancel_runs", *[add_run() for _ in range(30)])
    assert told(response)[-1] == "And 10 more: 10 done, 0 not changed."
    assert set(statuses().values()) == {"CANCELLED"}


@pytest.mark.parametrize("name", ["requeue", "cancel", "priority"])
def test_a_get_request_or_another_site_changes_nothing(name: str, admin: Client) -> None:
    run_id = add_run()
    url = f"{LIST}{run_id}/{name}/"
    assert admin.get(url).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(url, {"priority": 1}).status_code == 403
    assert statuses() == {run_id: "PENDING"}
    assert TaskRun.objects.get().priority == 0


# Who may


def test_a_user_with_only_the_view_permission_can_change_nothing(django_transaction: None) -> None:
    viewer = somebody_who_may("view_taskrun")
    run_id = add_run()
    assert "requeue" not in text_of(viewer.get(page(run_id)))
    assert 'name="action"' not in text_of(viewer.get(LIST))
    for name in ("requeue", "cancel", "priority"):
        assert viewer.post(f"{LIST}{run_id}/{name}/", {"priority": 1}).status_code == 403
    act(viewer, "cancel_runs", run_id)
    assert statuses() == {run_id: "PENDING"}
    assert viewer.get(QUEUES).status_code == 200
    assert viewer.get(WORKERS).status_code == 403


def test_a_user_with_the_change_permission_can_cancel(django_transaction: None) -> None:
    editor = somebody_who_may("change_taskrun")
    run_id = add_run()
    editor.post(f"{LIST}{run_id}/cancel/")
    assert statuses() == {run_id: "CANCELLED"}


def test_a_user_without_a_permission_sees_nothing(django_transaction: None) -> None:
    nobody = somebody_who_may()
    run_id = add_run()
    for url in (LIST, page(run_id), QUEUES, WORKERS):
        assert nobody.get(url).status_code == 403
    for url in (LIST, page(run_id), QUEUES, WORKERS):
        assert Client().get(url).status_code == 302


def test_nobody_adds_changes_or_deletes_a_row(admin: Client) -> None:
    run_id = add_run()
    assert admin.get(f"{LIST}add/").status_code == 403
    assert admin.post(f"{LIST}{run_id}/delete/", {"post": "yes"}).status_code == 403
    assert admin.post(page(run_id), {"status": "FAILED"}).status_code == 405
    act(admin, "delete_selected", run_id, post="yes")
    assert statuses() == {run_id: "PENDING"}


# Queues and workers


def test_the_queues_page_shows_waiting_and_failed_runs(admin: Client) -> None:
    add_run(queue_name="mail")
    add_run(queue_name="mail", run_after="tomorrow")
    add_run(queue_name="mail", status="RUNNING")
    add_run(queue_name="mail", status="FAILED", finished_at="now")
    add_run(queue_name="mail", status="FAILED", finished_at="yesterday")
    add_run(queue_name=HOSTILE)
    response = admin.get(QUEUES)
    mail = next(row for row in response.context["queues"] if row.name == "mail")
    assert (mail.pending, mail.due, mail.running, mail.failed_lately, mail.failed) == (
        "2",
        "1",
        "1",
        "1",
        "2",
    )
    text = text_of(response)
    assert "<script>alert" not in text
    assert "\u202e" not in text


def test_the_workers_page_shows_what_each_worker_executes(admin: Client) -> None:
    add_worker("worker-web-1.0", queues=("default", "mail"))
    add_worker("worker-web-1.1", lease="-5 s")
    run_id = add_run(status="RUNNING", leased_by="worker-web-1.0", last_attempted_at="now", attempts=1)
    lost = add_run(status="RUNNING", leased_by=HOSTILE)
    text = text_of(admin.get(WORKERS))
    for shown in (
        "web-1",
        "4242",
        "default, mail",
        "2 h",
        "ended",
        "idle",
        page(run_id),
        page(lost),
        "Not registered",
    ):
        assert shown in text, shown
    assert "<script>alert" not in text


def test_the_pages_work_on_empty_tables(admin: Client) -> None:
    assert "There are no runs" in text_of(admin.get(QUEUES))
    assert "manage.py reproq_worker" in text_of(admin.get(WORKERS))
    assert "0 task runs" in text_of(admin.get(LIST))
    assert "Background tasks" in text_of(admin.get("/admin/"))
