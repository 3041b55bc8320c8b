"""SQL stands in files, and values are bound: what is sent to a server is never put together in Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import reproq_prefork

PACKAGE = Path(reproq_prefork.__file__).parent
SENDING = frozenset({"execute", "executemany", "stream"})
# Who passes on what another has read from a file: (file, name of the argument).
PASSED_ON = {
    ("store/fetching.py", "statement"),  # `fetch`, whose callers are checked too
    ("store/fetching.py", "text"),
    ("store/pooling.py", "text"),
    ("store/odd_sessions.py", "statement"),
    ("django/sql_file.py", "file_text"),
    ("store/migrate.py", "file_text"),
}
BEGINS_LIKE_SQL = re.compile(
    r"\s*(select|insert\s+into|update\s+\w+\s+set|delete\s+from|truncate|create\s+\w+|alter\s+\w+|drop\s+\w+|with)\s",
    re.IGNORECASE,
)


def violations(source: str, file: str) -> Iterator[str]:
    """A sentence for each place where SQL is not what a file says."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (sent := _sent_by(node)) is not None:
            if not _is_from_a_file(sent, file):
                yield f"{file}:{node.lineno} sends {ast.unparse(sent)}"
        elif isinstance(node, ast.Constant) and id(node) not in docstrings and _looks_like_sql(node.value):
            yield f"{file}:{node.lineno} holds SQL: {ast.unparse(node)[:60]}"


def _looks_like_sql(value: object) -> bool:
    """A sentence for people may begin like SQL, too."""
    text = value if isinstance(value, str) else ""
    return bool(BEGINS_LIKE_SQL.match(text) and re.search(r"\b(from|into|set|table)\b", text))


def _sent_by(call: ast.Call) -> ast.expr | None:
    """The SQL of a call that sends some; a sender's `fetch` takes the name of a file instead."""
    match call:
        case ast.Call(func=ast.Attribute(attr=attribute), args=[sent, *_]) if attribute in SENDING:
            return sent
        case ast.Call(func=ast.Name(id="fetch"), args=[_, sent, *_]):
            return sent
    return None


def _is_from_a_file(sent: ast.expr, file: str) -> bool:
    match sent:
        case ast.Call(func=ast.Name(id="statement")):
            return True
        case ast.Name(id=name) | ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="encode")):
            return (file, name) in PASSED_ON
    return False


def test_all_sql_of_the_package_is_in_files() -> None:
    found = [
        violation
        for path in sorted(PACKAGE.rglob("*.py"))
        for violation in violations(path.read_text(), path.relative_to(PACKAGE).as_posix())
    ]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        'connection.execute(f"select {name} from task_runs")',
        'connection.execute("select 1 from task_runs")',
        "cursor.execute(\"update task_runs set queue_name = '%s'\" % name)",
        "cursor.executemany(text + where, rows)",
        'QUERY = "delete from task_runs where id = " + run_id',
        "fetch(connection, built, {})",
    ],
)
def test_sql_that_is_put_together_is_found(planted: str) -> None:
    assert list(violations(planted, "store/planted.py"))
