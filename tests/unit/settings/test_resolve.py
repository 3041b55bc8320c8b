"""Where a setting comes from, which place wins, and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.errors import SettingsError
from reproq_prefork.model.limits import MAX_ARGV_PAYLOAD_BYTES
from reproq_prefork.settings import ExecutorKind, PayloadMode, Settings
from reproq_prefork.settings.options import OPTIONS, Option
from reproq_prefork.settings.resolve import describe, resolve
from reproq_prefork.settings.sources import FlagValue, Sources
from reproq_prefork.text.log import LogFormat, LogLevel
from tests.support.fakes.settings import CHDIR, NOW, resolved


def problems_of(**sources: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        resolved(**sources)
    return caught.value.problems


def test_nothing_needs_to_be_set() -> None:
    assert resolved().settings == Settings(
        database_url=None,
        database_url_is_flag=False,
        workers=4,
        queues=("default",),
        queues_are_given=False,
        excluded_queues=(),
        worker_id="worker-db-7-20261124T213116",
        poll_interval_s=1.0,
        python_path="python3",
        executor_module=None,
        command=None,
        executor=ExecutorKind.COMMAND,
        allowed_task_modules=(),
        django_settings=None,
        task_env=None,
        payload_mode=PayloadMode.ARGV,
        lease_s=30.0,
        timeout_s=3600.0,
        max_attempts_ceiling=None,
        shutdown_timeout_s=25.0,
        boot_timeout_s=60.0,
        retry_base_s=5.0,
        retry_max_s=3600.0,
        max_tasks=0,
        max_rss_kib=0,
        task_memory_bytes=0,
        pid_file=None,
        log_level=LogLevel.INFO,
        log_format=LogFormat.CONSOLE,
        drain=False,
        reload=False,
        chdir=CHDIR,
        task_environ={},
    )
    assert {value.source for value in resolved().values.values()} == {"default"}


def test_each_source_takes_precedence_over_the_next() -> None:
    places: dict[str, Any] = {
        "flags": {"workers": "1"},
        "environ": {"REPROQ_WORKERS": "2"},
        "env_file": {"REPROQ_WORKERS": "3"},
        "config": {"workers": "4"},
    }
    found = []
    while True:
        value = resolved(**places, cpu_count=5).values["workers"]
        found.append((value.value, value.source))
        if not places:
            break
        del places[next(iter(places))]
    assert found == [
        (1, "flag --workers"),
        (2, "environment REPROQ_WORKERS"),
        (3, ".env"),
        (4, "reproq.toml"),
        (5, "default"),
    ]


def test_every_option_can_be_set_in_every_source_it_names() -> None:
    samples = {
        "executor": "command",
        "allowed_task_modules": "shop.tasks",
        "django": "site.settings",
        "max_rss": "512M",
        "task_memory": "1G",
        "reload": "true",
        "database_url": "postgresql://app@db/app",
        "workers": "3",
        "queues": "mail",
        "worker_id": "w1",
        "executor_module": "app.run",
        "command": "run.sh",
        "task_env": "PATH",
        "payload_mode": "stdin",
        "lease": "20s",
        "log_level": "error",
        "log_format": "json",
        "drain": "true",
    }
    for option in OPTIONS:
        text = samples.get(option.name, "7")
        places: list[dict[str, Any]] = [{"flags": {option.name: text}}]
        places += [{"environ": {name: text}} for name in option.variables]
        if option.toml_key:
            places += [{"env_file": {name: text}} for name in option.variables]
            places += [{"config": {option.toml_key: text}}]
        values = [resolved(**place).values[option.name] for place in places]
        assert len({str(value.value) for value in values}) == 1, option.name
        assert "default" not in {value.source for value in values}, option.name


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_value_counts_as_unset_wherever_it_is_written(blank: str) -> None:
    value = resolved(
        flags={"queues": blank}, environ={"QUEUE_NAME": blank}, env_file={"QUEUE_NAME": "mail"}
    ).values["queues"]
    assert (value.value, value.source) == (("mail",), ".env")


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ({}, ExecutorKind.COMMAND),
        ({"executor_module": "app.run"}, ExecutorKind.COMMAND),
        ({"allowed_task_modules": "shop"}, ExecutorKind.FORK),
        ({"django": "site.settings"}, ExecutorKind.FORK),
        ({"django": "site.settings", "command": "run.sh"}, ExecutorKind.COMMAND),
        ({"django": "site.settings", "command": "run.sh", "executor": "fork"}, ExecutorKind.FORK),
        ({"allowed_task_modules": "shop", "executor": "inline"}, ExecutorKind.INLINE),
        ({"allowed_task_modules": "shop", "executor": "command"}, ExecutorKind.COMMAND),
    ],
)
def test_the_default_executor_is_command_with_a_program_else_fork_with_python_tasks(
    flags: dict[str, str], kind: ExecutorKind
) -> None:
    settings = resolved(flags=flags).settings
    assert settings.executor is kind
    assert settings.runs_python is (kind is not ExecutorKind.COMMAND)


@pytest.mark.parametrize("kind", ["fork", "inline"])
def test_an_executor_of_python_tasks_must_know_where_they_come_from(kind: str) -> None:
    assert problems_of(flags={"executor": kind, "command": "run.sh"}) == (
        f"--executor (flag): {kind} runs Python tasks; name their modules with --django or "
        "--allowed-task-modules",
    )


@pytest.mark.parametrize(
    ("text", "kib", "shown"),
    [
        ("0", 0, "0"),
        ("512M", 524_288, "512M"),
        ("1g", 1_048_576, "1G"),
        ("1536M", 1_572_864, "1536M"),
        ("2097152", 2_048, "2M"),
        ("1048577", 1_025, "1048577"),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, kib: int, shown: str) -> None:
    outcome = resolved(flags={"max_rss": text})
    assert outcome.settings.max_rss_kib == kib
    assert {line.option: line.value for line in describe(outcome)}["max_rss"] == shown


def test_the_source_of_the_database_and_of_the_queues_is_known() -> None:
    given = resolved(flags={"database_url": "postgresql:///a"}, environ={"QUEUE_NAME": "mail"}).settings
    assert (given.database_url_is_flag, given.queues_are_given) == (True, True)
    assert not resolved(environ={"DATABASE_URL": "postgresql:///a"}).settings.database_url_is_flag


@pytest.mark.parametrize("name", ["default", "flag prod.env", "flag", "environment DATABASE_URL"])
@pytest.mark.parametrize("is_env_file", [True, False])
def test_the_name_of_a_file_decides_nothing(name: str, is_env_file: bool) -> None:
    """`source` is text for users: the name of a file may look like any other source."""
    by_variable = {
        "DATABASE_URL": "postgresql:///a",
        "QUEUE_NAME": "mail",
        "REPROQ_DJANGO": "site.settings",
    }
    by_key = {"database_url": "postgresql:///a", "queue": "mail", "django": "site.settings"}
    sources = Sources(
        {"excluded_queues": ["news"]},
        {},
        CHDIR,
        Path(name) if is_env_file else None,
        by_variable if is_env_file else {},
        None if is_env_file else Path(name),
        {} if is_env_file else by_key,
    )
    settings = resolve(sources, hostname="db-7", now=NOW, cpu_count=4).settings
    assert (settings.database_url, settings.queues) == ("postgresql:///a", ("mail",))
    assert (settings.database_url_is_flag, settings.queues_are_given) == (False, True)
    # No queue is left, which nobody says of queues that are only the default of a project.
    with pytest.raises(SettingsError, match="no queue is left"):
        resolve(replace(sources, flags={"excluded_queues": ["mail"]}), hostname="h", now=NOW, cpu_count=4)


@pytest.mark.parametrize("absent", [None, False, ()])
def test_a_flag_that_is_not_given_is_not_a_value(absent: FlagValue) -> None:
    option = "queues" if absent == () else "drain"
    assert resolved(flags={option: absent}).values[option].source == "default"


def test_a_stronger_source_can_turn_a_switch_off() -> None:
    assert resolved(flags={"drain": True}).settings.drain
    assert not resolved(environ={"REPROQ_DRAIN": "0"}, config={"drain": "true"}).settings.drain


def test_queues_are_repeated_or_listed_and_kept_once_in_order() -> None:
    assert resolved(flags={"queues": ("mail, sms", "default", "mail")}).settings.queues == (
        "mail",
        "sms",
        "default",
    )


def test_a_value_of_any_form_reaches_the_settings() -> None:
    settings = resolved(
        environ={
            "DATABASE_URL": " host=db dbname=app ",
            "POLL_INTERVAL": "250ms",
            "EXECUTOR_COMMAND": "node 'run task.js' --fast",
            "REPROQ_TASK_ENV": "PATH, HOME,PATH",
            "PAYLOAD_MODE": "STDIN",
            "REPROQ_TIMEOUT": "0",
            "REPROQ_MAX_ATTEMPTS": "5",
            "REPROQ_PID_FILE": "run/reproq.pid",
            "REPROQ_LOG_LEVEL": "debug",
            "REPROQ_LOG_FORMAT": "json",
        }
    ).settings
    assert settings.database_url == "host=db dbname=app"
    assert settings.poll_interval_s == 0.25
    assert settings.command == ("node", "run task.js", "--fast")
    assert settings.task_env == ("PATH", "HOME")
    assert settings.payload_mode is PayloadMode.STDIN
    assert settings.timeout_s == 0
    assert settings.max_attempts_ceiling == 5
    assert settings.pid_file == CHDIR / "run/reproq.pid"
    assert settings.log_level is LogLevel.DEBUG
    assert settings.log_format is LogFormat.JSON


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("REPROQ_WORKERS", "eight", '"eight" is not a whole number; give one from 1 to 1024'),
        ("REPROQ_WORKERS", "0", '"0" is out of range; give one from 1 to 1024'),
        ("REPROQ_WORKERS", "9" * 5_000, f'"{"9" * 80}…" is out of range; give one from 1 to 1024'),
        ("REPROQ_LEASE", "0.5", '"0.5" is out of range; give one from 1s to 1d'),
        (
            "REPROQ_TIMEOUT",
            "366d",
            '"366d" is out of range; give one from 1ms to 365d, or 0 for no deadline',
        ),
        (
            "POLL_INTERVAL",
            "soon",
            '"soon" is not a duration; give one such as 500ms, 30s, 2m, 1h30m, 7d, or plain seconds',
        ),
        ("REPROQ_LOG_LEVEL", "loud", '"loud" is not one of debug, info, warning, error'),
        ("REPROQ_DRAIN", "perhaps", '"perhaps" is neither true nor false'),
        ("REPROQ_MAX_RSS", "1K", '"1K" is out of range; give one from 1M to 1T, or 0 for never'),
        ("REPROQ_MAX_RSS", "much", '"much" is not a size; give one such as 512M, 1G, or plain bytes'),
        (
            "ALLOWED_TASK_MODULES",
            "shop,,x",
            '"" is not a dotted module path, such as myapp.executor',
        ),
        ("QUEUE_NAME", "a,,b", "a queue name in the list is empty"),
        ("QUEUE_NAME", "a\nb", r'"a\nb" holds characters that cannot be printed'),
        ("QUEUE_NAME", "q" * 129, f'the queue name "{"q" * 80}…" is longer than 128 characters'),
        ("QUEUE_NAME", ",".join(map(str, range(101))), "101 queues are too many; give at most 100"),
        ("WORKER_ID", "é" * 51, f'"{"é" * 51}" is longer than 100 bytes'),
        ("EXECUTOR_MODULE", "run.py/x", '"run.py/x" is not a dotted module path, such as myapp.executor'),
        ("EXECUTOR_MODULE", "app..x", '"app..x" is not a dotted module path, such as myapp.executor'),
        (
            "EXECUTOR_COMMAND",
            "run 'x",
            '"run \'x" cannot be split as a shell would: No closing quotation',
        ),
        ("EXECUTOR_COMMAND", "''", "\"''\" does not name a program"),
        (
            "REPROQ_TASK_ENV",
            "inherit,PATH=1",
            '"PATH=1" is not the name of a variable; give `inherit`, or NAME,NAME,…',
        ),
        ("DATABASE_URL", "mysql://app:s3cret=@db", "this is not a PostgreSQL address; give one such as "),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_its_source_and_what_to_do(
    variable: str, text: str, sentence: str
) -> None:
    (problem,) = problems_of(environ={variable: text})
    assert problem.startswith(f"{variable} (environment): {sentence}")
    assert "s3cret" not in problem


def test_each_source_is_named_as_the_user_wrote_it() -> None:
    wrong: list[dict[str, Any]] = [
        {"flags": {"workers": "x"}},
        {"environ": {"REPROQ_WORKERS": "x"}},
        {"env_file": {"REPROQ_WORKERS": "x"}},
        {"config": {"workers": "x"}},
    ]
    assert [problems_of(**place)[0].partition(":")[0] for place in wrong] == [
        "--workers (flag)",
        "REPROQ_WORKERS (environment)",
        "REPROQ_WORKERS (.env)",
        "workers (reproq.toml)",
    ]


def test_all_problems_are_reported_at_once() -> None:
    found = problems_of(
        environ={"REPROQ_WORKERS": "x", "REPROQ_LEASE": "y"}, problems=("reproq.toml: unknown key",)
    )
    assert len(found) == 3


def test_a_wrong_value_in_a_weaker_source_is_not_a_problem() -> None:
    assert resolved(flags={"workers": "2"}, environ={"REPROQ_WORKERS": "x"}).settings.workers == 2


def test_the_executor_from_the_stronger_source_wins() -> None:
    outcome = resolved(flags={"command": "run.sh"}, environ={"EXECUTOR_MODULE": "app.run"})
    assert outcome.settings.executor_argv == ("run.sh",)
    assert outcome.settings.executor_module is None
    assert outcome.values["executor_module"].source == "unset by flag --command"
    outcome = resolved(environ={"EXECUTOR_MODULE": "app.run"}, config={"command": "run.sh"})
    assert outcome.settings.executor_argv == ("python3", "-m", "app.run")
    assert outcome.settings.command is None


def test_two_executors_in_one_source_are_refused() -> None:
    assert problems_of(environ={"EXECUTOR_MODULE": "app.run", "EXECUTOR_COMMAND": "run.sh"}) == (
        "EXECUTOR_MODULE (environment) and EXECUTOR_COMMAND (environment) both say what runs a task; "
        "set only one of them",
    )


def test_the_first_retry_cannot_wait_longer_than_the_limit() -> None:
    assert problems_of(config={"retry_base": "2h"}) == (
        "retry_base (reproq.toml): the first wait before a retry, 2h, is longer than the longest, 1h",
    )
    assert resolved(config={"retry_base": "2h", "retry_max": "2h"}).settings.retry_base_s == 7200


def test_a_database_or_an_executor_is_required_only_by_commands_that_need_it() -> None:
    settings = resolved().settings
    with pytest.raises(
        SettingsError, match=r"--database-url.*DATABASE_URL.*`reproq-prefork demo` does not need one"
    ):
        settings.require_database_url()
    with pytest.raises(SettingsError, match=r"--executor-module.*--command"):
        settings.require_executor()
    settings = resolved(flags={"database_url": "postgresql:///app", "executor_module": "app.run"}).settings
    assert settings.require_database_url() == "postgresql:///app"
    settings.require_executor()
    assert settings.executor_argv == ("python3", "-m", "app.run")
    resolved(flags={"allowed_task_modules": "shop.tasks"}).settings.require_executor()


def test_tasks_start_from_the_environment_and_what_the_env_file_adds() -> None:
    settings = resolved(
        environ={"PATH": "/bin", "FLAVOUR": "", "DATABASE_URL": ""},
        env_file={"PATH": "/tmp", "FLAVOUR": "sweet", "DATABASE_URL": "postgresql:///app", "EXTRA": "1"},
    ).settings
    assert settings.task_environ == {
        "PATH": "/bin",
        "FLAVOUR": "",
        "DATABASE_URL": "postgresql:///app",  # blank is unset for an option of ours
        "EXTRA": "1",
    }


def test_an_allow_list_hides_every_other_variable_from_tasks() -> None:
    settings = resolved(
        environ={"PATH": "/bin", "DATABASE_URL": "postgresql:///app", "REPROQ_TASK_ENV": "PATH,EXTRA,ABSENT"},
        env_file={"EXTRA": "1", "OTHER": "2"},
    ).settings
    assert settings.task_environ == {"PATH": "/bin", "EXTRA": "1"}


@pytest.mark.parametrize("task_env", ["inherit", "PATH,NOTIFY_SOCKET,LISTEN_FDS"])
def test_a_task_does_not_inherit_the_variables_of_systemd(task_env: str) -> None:
    own = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"]
    settings = resolved(
        flags={"task_env": task_env},
        environ={"PATH": "/bin"} | dict.fromkeys(own, "x"),
        env_file={own[0]: "y"},
    ).settings
    assert settings.task_environ == {"PATH": "/bin"}


def test_a_worker_id_that_nobody_chose_is_short_and_printable() -> None:
    worker_id = resolved(hostname="h\nö st" * 100).settings.worker_id
    assert worker_id.isprintable()
    assert len(worker_id.encode()) <= 100
    assert worker_id.endswith("-20261124T213116")


def test_a_host_of_many_cpus_gets_no_more_workers_than_are_allowed() -> None:
    assert resolved(cpu_count=4096).settings.workers == 1024


def test_a_lease_leaves_room_for_five_missed_renewals() -> None:
    settings = resolved(flags={"lease": "30s"}).settings
    assert settings.renew_interval_s == 5.0
    assert settings.fence_margin_s == 5.0
    assert settings.believed_lease_s == 25.0, "a worker treats its lease as over before others do"
    assert settings.fence_grace_s == 2.5, "and where it does not end its task then, its master still can"


def test_a_payload_argument_stays_below_what_linux_allows() -> None:
    assert MAX_ARGV_PAYLOAD_BYTES < 128 * 1024 - 1


SECRETS: dict[str, Any] = {
    "flags": {"database_url": "postgresql://app:s3cret@db/app?sslpassword=s3cret"},
    "environ": {"TOKEN": "s3cret"},
}


def test_settings_go_through_a_pipe_and_come_out_the_same() -> None:
    outcome = resolved(**SECRETS, env_file={"QUEUE_NAME": "mail"}, warnings=("careful",))
    assert pickle.loads(pickle.dumps(outcome)) == outcome


def test_settings_never_show_a_password() -> None:
    outcome = resolved(**SECRETS)
    assert "s3cret" not in repr(outcome.settings)
    assert outcome.settings.masked_database_url == "postgresql://app:***@db/app?sslpassword=***"
    assert "s3cret" not in str(describe(outcome))


def test_a_description_shows_each_value_and_its_source() -> None:
    outcome = resolved(
        **SECRETS, env_file={"REPROQ_LEASE": "1m30s"}, config={"command": "run 'a b'", "queue": "mail,sms"}
    )
    lines = {line.option: (line.value, line.source) for line in describe(outcome)}
    assert list(lines) == [option.name for option in OPTIONS]
    assert lines["database_url"] == ("postgresql://app:***@db/app?sslpassword=***", "flag --database-url")
    assert lines["lease"] == ("1m30s", ".env")
    assert lines["command"] == ("run 'a b'", "reproq.toml")
    assert lines["queues"] == ("mail,sms", "reproq.toml")
    assert lines["task_env"] == ("inherit", "default")
    assert lines["max_attempts"] == ("what each run allows", "default")
    assert lines["env_file"] == ("/srv/app/current/.env", "default")
    assert lines["drain"] == ("false", "default")


SOME_TEXTS = st.text() | st.sampled_from(["0", "5", "1.5", "90s", "true", "a,b", "A_B", "json", "x 'y z'"])


@given(st.sampled_from(OPTIONS), SOME_TEXTS)
def test_any_text_is_a_value_that_can_be_shown_and_read_again_or_a_printable_error(
    option: Option, text: str
) -> None:
    try:
        value = option.kind.parse(text or "x")
    except ValueError as error:
        sentence = str(error)
    else:
        assert value is None or option.kind.parse(option.kind.show(value)) == value
        return
    assert sentence.isprintable()


def test_an_excluded_queue_is_left_to_others() -> None:
    settings = resolved({"queues": "a,b,c", "excluded_queues": ["b", "x"]}).settings
    assert (settings.queues, settings.excluded_queues) == (("a", "c"), ("b", "x"))


@pytest.mark.parametrize("flags", [{"queues": "a", "excluded_queues": "a"}, {"excluded_queues": "default"}])
def test_the_exclusions_must_leave_at_least_one_queue(flags: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"--exclude-queue \(flag\): no queue is left"):
        resolved(flags)


# --- variables ---


@pytest.mark.parametrize("place", ["environ", "env_file"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("REPROQ_QUEUES", "did you mean REPROQ_QUEUE?"),
        ("REPROQ_QUEUE_NAME", "did you mean REPROQ_QUEUE?"),
        ("REPROQ_WORKER", "did you mean REPROQ_WORKERS?"),
        ("REPROQ_EXECUTOR_COMMAND", "did you mean REPROQ_COMMAND?"),
        ("REPROQ_XYZ", "`reproq-prefork --help` lists all variables"),
    ],
)
def test_an_unknown_variable_is_refused_with_a_suggestion(place: str, name: str, hint: str) -> None:
    variables: dict[str, Any] = {place: {name: "s3cret"}}
    with pytest.raises(SettingsError) as caught:
        resolved(**variables)
    (problem,) = caught.value.problems
    place_name = {"environ": "environment", "env_file": ".env"}[place]
    assert problem == f"{name} ({place_name}): there is no such variable; {hint}"


@pytest.mark.parametrize(
    "name",
    [
        "REPROQ_TASK_ID",
        "REPROQ_RESULT_FD",
        "REPROQ_TEST_DATABASE_URL",
        "REPROQ_SERVICE_HOST",
        "REPROQ_SERVICE_PORT_HTTP",
        "REPROQ_PORT",
        "REPROQ_WEB_PORT_80_TCP_ADDR",
        "OTHER_QUEUE",
    ],
)
def test_a_variable_that_others_set_is_not_refused(name: str) -> None:
    assert resolved(environ={name: "7"}).settings.queues == ("default",)


def test_a_blank_unknown_variable_is_not_set() -> None:
    assert resolved(environ={"REPROQ_QUEUES": " "}).settings.queues == ("default",)


@pytest.mark.parametrize("place", ["environ", "env_file"])
def test_two_names_of_an_option_with_different_values_are_refused(place: str) -> None:
    variables: dict[str, Any] = {place: {"DATABASE_URL": "dbname=a", "REPROQ_DATABASE_URL": "dbname=b"}}
    with pytest.raises(SettingsError) as caught:
        resolved(**variables)
    (problem,) = caught.value.problems
    assert problem.startswith("DATABASE_URL and REPROQ_DATABASE_URL (")
    assert "dbname" not in problem


def test_two_names_of_an_option_may_have_the_same_value_or_be_in_two_places() -> None:
    same = resolved(environ={"QUEUE_NAME": "mail", "REPROQ_QUEUE": " mail "})
    assert same.settings.queues == ("mail",)
    apart = resolved(environ={"REPROQ_QUEUE": "mail"}, env_file={"QUEUE_NAME": "slow"})
    assert (apart.settings.queues, apart.values["queues"].source) == (("mail",), "environment REPROQ_QUEUE")
