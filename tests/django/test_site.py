"""The harness itself: both of Django's ways to test work here, and leave nothing to each other."""

from __future__ import annotations

from django.db import connection, transaction
from django.test import Client, TestCase, TransactionTestCase

from tests.django.app.models import Note
from tests.support.postgres.databases import MIGRATIONS


class InATransaction(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        Note.objects.create(text="of the class")

    def test_a_test_case_sees_rows_of_its_class_and_its_own(self) -> None:
        Note.objects.create(text="of a test")
        assert Note.objects.count() == 2

    def test_a_test_case_sees_nothing_of_another_test(self) -> None:
        assert [note.text for note in Note.objects.all()] == ["of the class"]

    async def test_a_test_case_may_be_asynchronous(self) -> None:
        await Note.objects.acreate(text="of a test")
        assert await Note.objects.acount() == 2


class WithCommits(TransactionTestCase):
    def test_a_transaction_test_case_commits(self) -> None:
        called: list[str] = []
        with transaction.atomic():
            Note.objects.create(text="committed")
            transaction.on_commit(lambda: called.append("called"))
        assert (called, Note.objects.count()) == (["called"], 1)

    def test_a_transaction_test_case_starts_without_rows(self) -> None:
        assert Note.objects.count() == 0


def test_a_plain_test_has_its_own_database(django_database: str, django_session_database: str) -> None:
    assert django_database.endswith(connection.settings_dict["NAME"])
    assert django_database != django_session_database


def test_migrate_applies_each_of_our_migrations(django_database: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select version from reproq_schema_migrations order by version")
        applied = [version for (version,) in cursor.fetchall()]
    assert applied == list(range(1, len(list(MIGRATIONS.glob("*.up.sql"))) + 1))


def test_the_site_answers(django_database: str) -> None:
    assert Client().get("/admin/login/").status_code == 200
