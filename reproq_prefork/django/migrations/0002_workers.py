from __future__ import annotations

from django.db import migrations, models

from reproq_prefork.django import fields
from reproq_prefork.django.sql_file import ApplySqlFile


class Migration(migrations.Migration):
    dependencies = [("reproq_prefork", "0001_task_runs")]
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[ApplySqlFile("0002_workers")],
            state_operations=[
                migrations.CreateModel(
                    "Worker",
                    [
                        ("id", models.TextField("id", primary_key=True)),
                        ("host", models.TextField("host")),
                        ("host_identity", models.TextField("boot and pid namespace of the host")),
                        ("pid", models.IntegerField("process id")),
                        ("pid_started", models.BigIntegerField("start of the process in clock ticks")),
                        ("master_pid", models.IntegerField("process id of its master")),
                        ("master_started", models.BigIntegerField("start of its master in clock ticks")),
                        ("backend_pid", models.IntegerField("process id of its server process", null=True)),
                        ("backend_started", models.DateTimeField("start of its server process", null=True)),
                        ("version", models.TextField("version")),
                        ("queues", fields.TextListField("queues")),
                        ("started_at", models.DateTimeField("started", auto_now_add=True)),
                        ("renewed_at", models.DateTimeField("lease renewed")),
                        ("lease_expires_at", models.DateTimeField("lease ends")),
                    ],
                    options={"db_table": "reproq_workers", "managed": False, "verbose_name": "worker"},
                ),
            ],
        ),
    ]
