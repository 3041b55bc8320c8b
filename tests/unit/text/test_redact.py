from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.text.redact import MASK, mask_url


@pytest.mark.parametrize(
    ("dsn", "masked"),
    [
        ("postgresql://app:s3cret@db/app", "postgresql://app:***@db/app"),
        (
            "postgres://app:s3cret@db:5432/app?sslmode=require",
            "postgres://app:***@db:5432/app?sslmode=require",
        ),
        ("postgresql+psycopg://app:s3cret@db/app", "postgresql+psycopg://app:***@db/app"),
        ("postgresql://app:s%40c@h1:1,h2:2/app", "postgresql://app:***@h1:1,h2:2/app"),
        ("postgresql://app:s@c/r#e:t@db/app", "postgresql://app:***@db/app"),
        ("postgresql://:s3cret@[::1]:5432/app", "postgresql://:***@[::1]:5432/app"),
        ("postgresql:///app?host=/run/pg&password=s3cret", "postgresql:///app?host=/run/pg&password=***"),
        ("postgresql:///app?PassWord=s3cret&user=x", "postgresql:///app?PassWord=***&user=x"),
        ("postgresql:///app?p%61ssword=s3cret", "postgresql:///app?p%61ssword=***"),
        ("postgresql:///app?sslpassword=s3cret", "postgresql:///app?sslpassword=***"),
        ("postgresql:///app?password=s3@cret", "postgresql:///app?password=***"),
        ("postgresql:///app?password=s3&cret", "postgresql:///app?***"),
        ("host=db user=app password=s3cret port=5432", "host=db user=app password=*** port=5432"),
        (r"password = 's3\' cret' host=db", "password = *** host=db"),
        (r"password=s3\ cret host=db", "password=*** host=db"),
        ("password= s3cret", "password= ***"),
        ("password=s3\u00a0c=ret", "password=***"),  # not a space to libpq
        ("sslpassword=s3cret user='a password=b'", "sslpassword=*** user='a password=b'"),
        ("password='s3cret", MASK),
        ("password=s3 cret host=db", MASK),
        ("s3cret", MASK),
    ],
)
def test_passwords_are_hidden_in_every_form(dsn: str, masked: str) -> None:
    assert mask_url(dsn) == masked


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "postgresql://",
        "postgresql:///app",
        "postgresql://app@db:5432/app",
        "postgresql://h1:5432,h2:5433/app?target_session_attrs=read-write",
        "postgresql://app@db/app?application_name=me@here",
        "host=db user=app",
        "host = db  user = 'my app'",
    ],
)
def test_an_address_without_a_password_is_shown_as_it_is(dsn: str) -> None:
    assert mask_url(dsn) == dsn


# Letters that no other part of the addresses below holds: if one shows up, the password leaked.
SECRET_LETTERS = "QXZ"
RAW_PASSWORD = st.text(SECRET_LETTERS + "@:/?#&=%' \\\t\n\u00a0\u2003é[]", min_size=1).filter(
    lambda text: any(letter in text for letter in SECRET_LETTERS)
)


def shows_none_of(masked: str) -> bool:
    return not any(letter in masked for letter in SECRET_LETTERS)


@given(RAW_PASSWORD)
def test_a_password_in_a_url_never_leaks_even_when_it_was_not_encoded(password: str) -> None:
    assert shows_none_of(mask_url(f"postgresql://app:{password}@h1:1,h2/db?sslmode=require"))


@given(RAW_PASSWORD)
def test_an_encoded_password_never_leaks_and_hides_nothing_else(password: str) -> None:
    encoded = quote(password, safe="")
    assert mask_url(f"postgresql://app:{encoded}@h1:1,h2/db?a=b") == "postgresql://app:***@h1:1,h2/db?a=b"
    assert mask_url(f"postgresql://app@h1:1,h2/db?password={encoded}&a=b") == (
        "postgresql://app@h1:1,h2/db?password=***&a=b"
    )


@given(RAW_PASSWORD)
def test_a_quoted_password_never_leaks_and_hides_nothing_else(password: str) -> None:
    value = password.replace("\\", "\\\\").replace("'", "\\'")
    assert mask_url(f"host=db password='{value}' user=app") == "host=db password=*** user=app"


@given(RAW_PASSWORD.filter(lambda text: "=" not in text and "&" not in text))
def test_a_password_that_was_not_quoted_never_leaks(password: str) -> None:
    assert shows_none_of(mask_url(f"host=db password={password} user=app"))
    assert shows_none_of(mask_url(f"postgresql://app:x@db/app?password={password}&user=app"))
