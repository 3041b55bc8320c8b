from __future__ import annotations

from django.db import migrations, models

from reproq_prefork.django import fields
from reproq_prefork.django.sql_file import ApplySqlFile


class Migration(migrations.Migration):
    dependencies = [("reproq_prefork", "0002_workers")]
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[ApplySqlFile("0003_python_tasks")],
            state_operations=[
                migrations.AddField("TaskRun", "executor", models.TextField("executor", null=True)),
                migrations.AddField("TaskRun", "atomic", models.BooleanField("atomic", default=False)),
                migrations.AddField(
                    "TaskRun",
                    "retry_base_seconds",
                    fields.RealField("first wait before a retry, in seconds", null=True),
                ),
                migrations.AddField(
                    "TaskRun",
                    "retry_max_seconds",
                    fields.RealField("longest wait before a retry, in seconds", null=True),
                ),
                migrations.AddField(
                    "TaskRun", "cancel_requested_at", models.DateTimeField("asked to stop", null=True)
                ),
                migrations.AddField("TaskRun", "metadata", fields.StoredJSONField("progress", null=True)),
                migrations.AddField(
                    "TaskRun", "last_attempt", fields.StoredJSONField("usage of the last attempt", null=True)
                ),
                migrations.AddField(
                    "TaskRun", "finish_due_at", models.DateTimeField("end to be announced from", null=True)
                ),
            ],
        ),
    ]
