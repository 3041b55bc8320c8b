"""The entries of TASKS that are ours."""

from __future__ import annotations

from reproq_prefork.django.families.compat import families
from reproq_prefork.django.project.tasks_setting import own_entries
from reproq_prefork.django.queue_backend import QueueBackend


def own_backends() -> list[QueueBackend]:
    """All of our backends, of every installed family."""
    aliases = [entry.alias for entry in own_entries(skip_broken=True)]
    return [family.backends[alias] for family in families() for alias in aliases]
