"""The context that all our pages in the admin have."""

from __future__ import annotations

from typing import Any

import django
from django.urls import reverse


def page_context(model_admin: Any, request: Any, title: str, *, crumb: str = "") -> dict[str, Any]:
    """The admin's own context, and the path to the page. `crumb` names it below the list of its model."""
    opts = model_admin.opts
    name = f"{model_admin.admin_site.name}:"
    list_url = reverse(f"{name}{opts.app_label}_{opts.model_name}_changelist")
    return {
        **model_admin.admin_site.each_context(request),
        "title": title,
        "opts": opts,
        "media": model_admin.media,
        "app_url": reverse(f"{name}app_list", args=[opts.app_label]),
        "list_url": list_url if crumb else "",
        "crumb": crumb or opts.verbose_name_plural.capitalize(),
        "crumbs_are_a_list": django.VERSION >= (6, 1),  # the admin's own styles depend on this
    }
