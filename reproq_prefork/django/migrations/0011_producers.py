from __future__ import annotations

from django.db import migrations

from reproq_prefork.django.sql_file import ApplySqlFile


class Migration(migrations.Migration):
    dependencies = [("reproq_prefork", "0010_bounds")]
    operations = [
        migrations.SeparateDatabaseAndState(database_operations=[ApplySqlFile("0011_producers")]),
    ]
