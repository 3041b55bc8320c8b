"""The table of options, and the page of the docs that must follow it."""

from __future__ import annotations

import tomllib

import pytest

from reproq_prefork.settings import options
from reproq_prefork.settings.files import parse_config_file, parse_env_file
from reproq_prefork.settings.options import OPTIONS, Option
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks

PAGE = CHECKOUT / "docs" / "configuration.md"


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def table_row(option: Option) -> str:
    metavar = code(option.kind.metavar.replace("|", "\\|"))
    default = option.show_default()
    cells = [
        " ".join([", ".join(code(flag) for flag in option.flags), metavar]).strip(),
        ", ".join(code(name) for name in option.variables),
        code(option.toml_key or ""),
        default if " " in default else code(default),
        option.help,
    ]
    return "| " + " | ".join(cells) + " |"


def code_block(language: str) -> str:
    return code_blocks(PAGE.read_text(), language)[0]


def test_the_docs_hold_exactly_the_options_there_are() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `-")]
    assert rows == [table_row(option) for option in OPTIONS]


def test_the_docs_example_of_a_config_file_is_valid() -> None:
    values, problems = parse_config_file(code_block("toml"))
    assert problems == []
    assert len(values) == len(tomllib.loads(code_block("toml")))


def test_the_docs_example_of_an_env_file_is_valid() -> None:
    assert parse_env_file(code_block("sh")).keys() <= {
        name for option in OPTIONS for name in option.variables
    }


@pytest.mark.parametrize("attribute", ["name", "env", "toml_key", "long_flag"])
def test_no_two_options_share_a_name(attribute: str) -> None:
    names = [getattr(option, attribute) for option in OPTIONS if getattr(option, attribute) is not None]
    assert len(names) == len(set(names))


def test_every_option_has_a_variable_that_is_named_as_its_flag() -> None:
    names = [name for option in OPTIONS for name in option.variables]
    assert len(names) == len(set(names))
    for option in OPTIONS:
        assert "REPROQ_" + option.long_flag.strip("-").replace("-", "_").upper() in option.variables


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_explains_itself(option: Option) -> None:
    assert option.help.endswith(".")
    assert option.long_flag.startswith("--")
    assert option.env.isupper()
    assert option.multiple <= (option.kind.join is not None)
    assert option.secret == (option.name == "database_url")


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.default is not None], ids=lambda option: option.name
)
def test_a_default_is_a_value_that_people_could_set(option: Option) -> None:
    assert option.kind.parse(option.show_default()) == option.default


def test_the_defaults_are_those_of_the_design() -> None:
    assert options.DEFAULT_POLL_INTERVAL_S == 1
    assert options.DEFAULT_LEASE_S == 30
    assert options.DEFAULT_TIMEOUT_S == 3600
    assert options.DEFAULT_BOOT_TIMEOUT_S == 60
    assert (options.DEFAULT_RETRY_BASE_S, options.DEFAULT_RETRY_MAX_S) == (5, 3600)
    assert options.DEFAULT_SHUTDOWN_TIMEOUT_S == 25
