"""Hides the passwords of a database address before anybody sees it."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"

_LIBPQ_SPACE = " \t\n\r\f\v"

_SECRET_NAME = re.compile(r"passw(?:or)?d|passphrase|pwd|secret|token", re.IGNORECASE)
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
# One `name = value` of libpq's key/value form. The value is quoted, or ends at a space; a backslash escapes.
_PAIR = re.compile(
    r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|)(?=\s|$)",
    re.ASCII | re.DOTALL,
)
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^\[\]:]*)(?::[0-9]*)?")
_LOOKS_LIKE_AN_ADDRESS = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://.*|\b\w*(?:passw|passphrase|pwd|secret|token)\w*\s*=.*", re.I | re.S
)


def is_ambiguous(dsn: str) -> bool:
    """Whether libpq and a reader may disagree about where the password of this address ends.

    libpq ends it at the first `@`, and takes a `/` before that for the end of the host. A person, and `mask_url`,
    expect the last `@`. The rest of the password would then be a host, a port or a database, which errors name.
    """
    scheme = _URL.match(dsn)
    if not scheme:
        return _hides_an_address(dsn)
    head, _, query = dsn[scheme.end() :].partition("?")
    authority, _, path = head.partition("/")
    if head.count("@") > 1 or "@" in path:
        return True
    if "@" in query and (":" in head or head == authority):
        return True
    hosts = authority.rpartition("@")[2]
    return not all(_HOST_AND_PORT.fullmatch(host) for host in hosts.split(","))


def _hides_an_address(dsn: str) -> bool:
    """Whether a value of the key=value form that errors name is an address itself."""
    pairs = ((pair["name"], pair["value"]) for pair in _PAIR.finditer(dsn))
    return any("://" in value for name, value in pairs if not _SECRET_NAME.search(name))


def mask_addresses(text: str) -> str:
    """`text` without what may be a password: from the first address or password in it on, it is masked.

    For words of a command line that were given in the wrong place.
    """
    found = _LOOKS_LIKE_AN_ADDRESS.search(text)
    return text if found is None else text[: found.start()] + MASK


def mask_url(dsn: str) -> str:
    """`dsn`, a URL or libpq's key=value form, with each password replaced by `***`.

    Covers `user:password@`, several hosts, parameters such as `?password=` and `sslpassword`, and percent-encoded
    names. If the text is not well formed, too much is hidden rather than too little. If it cannot be read at all,
    everything is hidden.
    """
    scheme = _URL.match(dsn)
    if scheme:
        return scheme.group() + _mask_after_scheme(dsn[scheme.end() :])
    return _mask_pairs(dsn)


def _mask_after_scheme(rest: str) -> str:
    # A password that is not percent-encoded may hold any of `@ / ? # :`, so it ends at the last `@`.
    userinfo, at, tail = rest.rpartition("@")
    if "?" in userinfo:
        # A password with a `?` in it, or a parameter with an `@`: nobody can tell.
        return MASK if ":" in userinfo else _mask_query(rest)
    user, colon, _ = userinfo.partition(":")
    return f"{user}:{MASK}@{_mask_query(tail)}" if colon else userinfo + at + _mask_query(tail)


def _mask_query(text: str) -> str:
    address, mark, query = text.partition("?")
    if not mark:
        return text
    pairs = [pair.partition("=") for pair in query.split("&")]
    if any(not equals for _, equals, _ in pairs):
        return f"{address}?{MASK}"
    return f"{address}?" + "&".join(
        f"{name}={MASK if _SECRET_NAME.search(unquote(name)) else value}" for name, _, value in pairs
    )


def _mask_pairs(dsn: str) -> str:
    masked, position = "", 0
    while dsn[position:].strip(_LIBPQ_SPACE):
        pair = _PAIR.match(dsn, position)
        if not pair:
            return MASK
        secret = _SECRET_NAME.search(pair["name"])
        masked += dsn[position : pair.start("value")] + MASK if secret else pair.group()
        position = pair.end()
    return masked
