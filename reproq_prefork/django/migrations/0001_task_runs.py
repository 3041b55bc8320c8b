from __future__ import annotations

from django.db import migrations, models

from reproq_prefork.django import fields
from reproq_prefork.django.sql_file import ApplySqlFile

STATUS_CHOICES = [
    ("PENDING", "Pending"),
    ("RUNNING", "Running"),
    ("SUCCESSFUL", "Successful"),
    ("FAILED", "Failed"),
    ("CANCELLED", "Cancelled"),
]


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[ApplySqlFile("0001_task_runs")],
            state_operations=[
                migrations.CreateModel(
                    "TaskRun",
                    [
                        ("id", models.BigAutoField("id", primary_key=True)),
                        ("queue_name", models.TextField("queue", default="default")),
                        ("payload", fields.StoredJSONField("payload")),
                        ("spec_hash", models.TextField("spec hash")),
                        ("task_path", models.TextField("task", null=True, editable=False)),
                        ("priority", models.SmallIntegerField("priority", default=0)),
                        ("run_after", models.DateTimeField("not before", null=True)),
                        ("status", models.TextField("status", default="PENDING", choices=STATUS_CHOICES)),
                        ("attempts", models.IntegerField("attempts", default=0)),
                        ("max_attempts", models.IntegerField("attempts allowed", default=3)),
                        ("timeout_seconds", fields.RealField("timeout in seconds", null=True)),
                        ("claims", models.BigIntegerField("claims", default=0)),
                        ("leased_by", models.TextField("held by", null=True)),
                        ("lease_expires_at", models.DateTimeField("lease ends", null=True)),
                        (
                            "worker_ids",
                            fields.TextListField("attempted by", default=list),
                        ),
                        ("result", fields.StoredJSONField("result", null=True)),
                        ("errors", fields.StoredJSONField("errors", default=list)),
                        ("enqueued_at", models.DateTimeField("enqueued", auto_now_add=True)),
                        ("started_at", models.DateTimeField("first started", null=True)),
                        ("last_attempted_at", models.DateTimeField("last started", null=True)),
                        ("finished_at", models.DateTimeField("finished", null=True)),
                        ("replay_of", models.BigIntegerField("re-run of", null=True)),
                        ("unique_key", models.TextField("unique key", null=True)),
                    ],
                    options={"db_table": "task_runs", "managed": False, "verbose_name": "task run"},
                ),
            ],
        ),
    ]
