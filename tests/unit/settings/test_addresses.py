"""No part of a password is printed: an address that can be read in two ways is refused, and not quoted."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reproq_prefork.errors import DatabaseUnavailable
from reproq_prefork.settings.kinds import DATABASE_URL
from reproq_prefork.store.connection import _address, _given
from reproq_prefork.text.redact import MASK, mask_addresses, mask_url

# Letters that no other part of the addresses below, and no sentence of ours, holds.
SECRET_LETTERS = "QXZ"
PASSWORD = st.text(SECRET_LETTERS + "@:/?#&=%,;' \\[]é1", min_size=1).filter(
    lambda text: any(letter in text for letter in SECRET_LETTERS)
)
TEMPLATES = (
    "postgresql://app:{}@127.0.0.1/db",
    "postgresql://app:{}@h1:1,[::1]:2/db?sslmode=require",
    "postgresql://app:{}@h",
    "postgresql://app:{}@h?sslmode=require",
    "postgres://:{}@/db",
)
# Without its host, a password is in the place of the port.
WITHOUT_HOST = ("postgresql://app:{}", "postgresql://app:{}/db")


def shown(address: str) -> tuple[list[str], dict[str, str]]:
    """All that is printed about this address, wherever, and how libpq reads it, if it is not refused."""
    try:
        url = DATABASE_URL.parse(address)
    except ValueError as error:
        return [str(error)], {}
    assert isinstance(url, str)
    try:
        read = dict(_given(url))
    except DatabaseUnavailable as error:
        return [str(error), mask_url(url)], {}
    return [_address(read), mask_url(url)], read


@given(PASSWORD, st.sampled_from(TEMPLATES))
@example("top@Zpart", TEMPLATES[0])
@example("Z/Q", TEMPLATES[0])
@example("1/Z", TEMPLATES[0])
@example("1/Z?sslmode=Q", TEMPLATES[0])
@example("Z?Q", TEMPLATES[3])
@example("@Z", TEMPLATES[1])
def test_no_part_of_a_password_in_a_url_is_printed(password: str, template: str) -> None:
    texts, read = shown(template.format(password))
    for text in texts:
        assert not any(letter in text for letter in SECRET_LETTERS), text
    if read:
        # Releases of libpq differ in whether blanks at the end belong to it.
        assert read["password"].strip(" ") == unquote(password.strip(" ")), "libpq reads what was meant"


@given(PASSWORD.filter(lambda text: not set(text) & set("@/?,")), st.sampled_from(WITHOUT_HOST))
def test_no_part_of_a_password_in_the_place_of_a_port_is_printed(password: str, template: str) -> None:
    texts, _ = shown(template.format(password))
    for text in texts:
        assert not any(letter in text for letter in SECRET_LETTERS), text


@given(PASSWORD)
def test_an_encoded_password_is_accepted_and_read_as_it_is(password: str) -> None:
    texts, read = shown(f"postgresql://app:{quote(password, safe='')}@h1:1,h2/db?application_name=me")
    assert read["password"] == password
    assert read["host"] == "h1,h2"
    for text in texts:
        assert not any(letter in text for letter in SECRET_LETTERS), text


@given(PASSWORD)
def test_no_part_of_a_quoted_password_is_printed(password: str) -> None:
    value = password.replace("\\", "\\\\").replace("'", "\\'")
    texts, read = shown(f"host=db password='{value}' user=app")
    assert read["password"] == password
    for text in texts:
        assert not any(letter in text for letter in SECRET_LETTERS), text


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://",
        "postgresql:///app",
        "postgresql://app@db:5432/app",
        "postgresql://app:s3cret@db:5432/app?sslmode=require",
        "postgresql://h1:5432,h2:5433/app?target_session_attrs=read-write",
        "postgresql://app@/app?host=/run/postgresql",
        "postgresql://app:a%40b@[::1]:5432/app",
        "postgresql://%2Frun%2Fpg:5432/app",
        "postgresql://app@db/app?application_name=me@here",
        "host=db user=app password=a@b:c/d",
        "service=app",
    ],
)
def test_an_ordinary_address_is_accepted(address: str) -> None:
    assert DATABASE_URL.parse(address) == address


@pytest.mark.parametrize(
    "address", ["dbname=postgresql://app:Z@h/x", "host=db dbname='postgres://app:Z@h/x' user=app"]
)
def test_an_address_in_the_name_of_a_database_is_refused(address: str) -> None:
    (text,), _ = shown(address)
    assert "Z" not in text


@pytest.mark.parametrize(
    "text",
    [
        "No such command 'postgresql://u:Z@Q@h/x'.",
        "Got unexpected extra argument (postgres://u:Z)Q ' @h/x)",
        "Got unexpected extra argument (host=db password='Z Q')",
        "No such option: --PGPASSWORD=Z",
    ],
)
def test_an_address_in_the_wrong_place_of_a_command_line_is_not_printed(text: str) -> None:
    masked = mask_addresses(text)
    assert masked.endswith(MASK)
    assert not any(letter in masked for letter in SECRET_LETTERS)


def test_a_sentence_without_an_address_is_printed_whole() -> None:
    assert mask_addresses("No such command 'worker'.") == "No such command 'worker'."
