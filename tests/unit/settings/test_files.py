"""What is read from `.env` and `reproq.toml`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.settings.files import MAX_FILE_BYTES, parse_config_file, parse_env_file, read_sources


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_files_that_nobody_named_may_be_missing(tmp_path: Path) -> None:
    sources = read_sources({}, {}, cwd=tmp_path)
    assert (sources.env_file, sources.config_file) == (None, None)
    assert (sources.problems, sources.warnings) == ((), ())


def test_files_are_found_in_the_working_directory(tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    (tmp_path / "current").symlink_to(release)
    write(release / ".env", "QUEUE_NAME=mail\n")
    write(release / "reproq.toml", "workers = 3\n")
    sources = read_sources({"chdir": "current"}, {}, cwd=tmp_path)
    assert sources.env_file_values == {"QUEUE_NAME": "mail"}
    assert sources.config_values == {"workers": "3"}
    # Kept as it was named: a reload must follow the link to the next release.
    assert sources.chdir == tmp_path / "current"


def test_files_can_be_named_by_flag_or_environment(tmp_path: Path) -> None:
    write(tmp_path / "prod.env", "QUEUE_NAME=mail\n")
    write(tmp_path / "prod.toml", "workers = 3\n")
    sources = read_sources({"env_file": "prod.env"}, {"REPROQ_CONFIG": "prod.toml"}, cwd=tmp_path)
    assert (sources.env_file, sources.config_file) == (Path("prod.env"), Path("prod.toml"))


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    sources = read_sources({"env_file": "prod.env"}, {"REPROQ_CONFIG": "prod.toml"}, cwd=tmp_path)
    assert sources.problems == (
        f'--env-file (flag): "{tmp_path}/prod.env" cannot be read: No such file or directory',
        f'REPROQ_CONFIG (environment): "{tmp_path}/prod.toml" cannot be read: No such file or directory',
    )


def test_a_missing_directory_is_the_only_problem_reported(tmp_path: Path) -> None:
    sources = read_sources({"env_file": "prod.env"}, {"REPROQ_CHDIR": "gone"}, cwd=tmp_path)
    assert sources.problems == (f'REPROQ_CHDIR (environment): "{tmp_path}/gone" is not a directory',)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"A=1\nB=\xff\n", "is not UTF-8 text (byte 6)"),
        (b"#" * (MAX_FILE_BYTES + 1), f"is larger than {MAX_FILE_BYTES} bytes"),
    ],
)
def test_a_file_that_is_not_a_settings_file_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    (tmp_path / "reproq.toml").write_bytes(content)
    sources = read_sources({}, {}, cwd=tmp_path)
    assert sources.problems == (
        f'.env: "{tmp_path}/.env" {problem}',
        f'reproq.toml: "{tmp_path}/reproq.toml" {problem}',
    )


def test_the_environment_of_this_process_is_neither_read_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPROQ_TRIAL", "from the process")
    write(tmp_path / ".env", "A=${REPROQ_TRIAL}\nREPROQ_TRIAL_2=x\nPASSWORD='pa$$word'\n")
    before = dict(os.environ)
    values = read_sources({}, {}, cwd=tmp_path).env_file_values
    assert values == {"A": "${REPROQ_TRIAL}", "REPROQ_TRIAL_2": "x", "PASSWORD": "pa$$word"}
    assert dict(os.environ) == before


def test_an_env_file_is_read_by_the_rules_people_know() -> None:
    text = "# comment\nexport A=1\nB='two words' # why\nC=\"line\\nbreak\"\nD=\nE\nA=2\n"
    assert parse_env_file(text) == {"A": "2", "B": "two words", "C": "line\nbreak", "D": ""}


@pytest.mark.parametrize("line", ["PASSWORD='s3cret", "'PASS=WORD'=s3cret", "PASSWORD s3cret="])
def test_an_unreadable_line_is_reported_by_its_number_and_not_its_content(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2 is not of the form NAME=value$"):
        parse_env_file(f"A=1\n{line}\n")


def test_a_nul_in_an_env_file_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        parse_env_file("A=x\0y")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_an_env_file_that_others_can_read_gets_a_warning_with_its_mode(tmp_path: Path, mode: int) -> None:
    write(tmp_path / ".env", "A=1\n", mode)
    (warning,) = read_sources({}, {}, cwd=tmp_path).warnings
    assert f"(mode {mode:04o})" in warning
    assert "chmod 600 .env" in warning


def test_an_env_file_cannot_say_where_it_is(tmp_path: Path) -> None:
    write(tmp_path / ".env", "REPROQ_CHDIR=/elsewhere\n")
    (warning,) = read_sources({}, {}, cwd=tmp_path).warnings
    assert warning.startswith(".env: REPROQ_CHDIR has no effect there")


def test_a_config_file_holds_values_of_their_natural_types() -> None:
    text = """
        workers = 8
        queue = ["mail", "sms"]
        lease = "45s"
        poll_interval = 0.5
        drain = true
        command = ["node", "run task.js"]
        task_env = []
    """
    assert parse_config_file(text) == (
        {
            "workers": "8",
            "queue": "mail,sms",
            "lease": "45s",
            "poll_interval": "0.5",
            "drain": "true",
            "command": "node 'run task.js'",
            "task_env": "",
        },
        [],
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("worker = 8", 'unknown key "worker"; did you mean "workers"?'),
        ("queues = ['a']", 'unknown key "queues"; did you mean "queue"?'),
        ("poll-interval = 1", 'unknown key "poll-interval"; did you mean "poll_interval"?'),
        ("REPROQ_TIMEOUT = 1", 'unknown key "REPROQ_TIMEOUT"; did you mean "timeout"?'),
        ("[lease]\na = 1", "lease: the value is of the wrong type; give text, a number, true or false"),
        ("zebra = 1", 'unknown key "zebra"; `reproq-prefork config` shows all keys'),
        ("[reproq]\nworkers = 1", 'unknown table "reproq"; all keys are at the top level, not in a table'),
        (
            "chdir = '/srv'",
            '"chdir" cannot be set there, since it names that file or its place; '
            "give --chdir, or set REPROQ_CHDIR in the environment",
        ),
        ("workers = [1]", "workers: the value is of the wrong type; give text, a number, true or false"),
        ("queue = [1]", "queue: the value is of the wrong type; give text or a list of texts"),
        ("lease = 2026-11-24", "lease: the value is of the wrong type; give text, a number, true or false"),
        ("workers = ", "this is not valid TOML: Invalid value (at end of document)"),
    ],
)
def test_a_mistake_in_a_config_file_is_reported_with_what_to_do(text: str, problem: str) -> None:
    assert parse_config_file(text) == ({}, [problem])


def test_a_hostile_config_file_is_a_problem_and_not_a_crash() -> None:
    for text in ("a=" + "[" * 100_000, "workers = 0x" + "f" * 10_000, 'workers = "\\ud800"'):
        values, problems = parse_config_file(text)
        assert (values, len(problems)) == ({}, 1)


@given(st.text())
def test_any_text_gives_values_or_problems(text: str) -> None:
    parse_config_file(text)
    try:
        values = parse_env_file(text)
    except ValueError:
        return
    assert not any("\0" in name + value or "=" in name for name, value in values.items())
