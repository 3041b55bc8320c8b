"""The list of runs, the page of one, and the page of the queues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, re_path, reverse

from reproq_prefork.django.admin.actions import MAX_RUNS, Act, cancel, carry_out, change_priority, requeue
from reproq_prefork.django.admin.columns import RunColumns
from reproq_prefork.django.admin.filters import AgeFilter, QueueFilter, StatusFilter, TaskFilter
from reproq_prefork.django.admin.listing import MAX_LISTED, NEWEST_RUNS, RunList, RunPaginator, search
from reproq_prefork.django.admin.pages import page_context
from reproq_prefork.django.admin.queue_page import queue_rows
from reproq_prefork.django.admin.run_page import run_context
from reproq_prefork.django.models import TaskRun
from reproq_prefork.django.project.database import own_alias
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.errors import ReproqError
from reproq_prefork.model.limits import MAX_PRIORITY, MIN_PRIORITY
from reproq_prefork.store.operator_store import MAX_RECENT_RUNS, OperatorReads
from reproq_prefork.store.task_runs import TaskRuns

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[TaskRun]
else:
    _ModelAdmin = admin.ModelAdmin

CSS = "reproq_prefork/admin.css"


class PriorityForm(forms.Form):
    priority = forms.IntegerField(
        min_value=MIN_PRIORITY,
        max_value=MAX_PRIORITY,
        help_text=f"From {MIN_PRIORITY} to {MAX_PRIORITY}; higher goes first.",
    )


class TaskRunAdmin(RunColumns, _ModelAdmin):
    list_filter = (StatusFilter, QueueFilter, TaskFilter, AgeFilter)
    list_per_page = 50
    list_max_show_all = 0
    list_select_related = False
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    search_fields = ("id",)  # only to show the search box: get_search_results does the search
    search_help_text = "A run's id, a spec hash (64 digits), or the beginning of a task's path."
    actions = ("requeue_runs", "cancel_runs", "change_priorities")
    paginator = RunPaginator

    class Media:
        css = {"all": [CSS]}

    # What is read

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).using(own_alias())

    def get_changelist(self, request: Any, **kwargs: Any) -> type[RunList]:
        return RunList

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        return search(queryset, search_term), False

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        # Any other column would be searched in the whole table.
        return lookup in {each.parameter_name for each in self.list_filter}

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        response = super().changelist_view(request, {"title": "Task runs", **(extra_context or {})})
        if isinstance(response, TemplateResponse) and "cl" in (response.context_data or {}):
            response.context_data["runs_note"] = self._note(response.context_data["cl"])  # type: ignore[index]
        return response

    def _note(self, runs: RunList) -> str:
        """What the list leaves out, or knows only roughly."""
        counted = runs.paginator.counted
        notes = []
        if runs.is_bounded:
            notes.append(f"Searched only the newest {NEWEST_RUNS:,} runs.")
        if counted > MAX_LISTED:
            everything = not runs.has_active_filters and not runs.query
            many = self._reads().estimated_runs() if everything else 0
            how_many = f"About {many:,} runs" if many > MAX_LISTED else f"More than {MAX_LISTED:,} runs"
            notes.append(f"{how_many}; the newest {MAX_LISTED:,} are listed.")
        return " ".join(notes)

    # What may be done

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    @admin.action(description="Queue again as new runs", permissions=["change"])
    def requeue_runs(self, request: Any, queryset: Any) -> None:
        chosen = self._chosen(request, queryset)
        with_key = self.get_queryset(request).filter(pk__in=chosen, unique_key__isnull=False)
        keys = dict(with_key.values_list("pk", "unique_key"))
        # With ATOMIC_REQUESTS this is one transaction, so its keys are in the order that all callers use.
        carry_out(self, request, sorted(chosen, key=lambda pk: keys.get(pk, "")), requeue(self._runs()))

    @admin.action(description="Cancel", permissions=["change"])
    def cancel_runs(self, request: Any, queryset: Any) -> None:
        self._act(request, queryset, cancel(self._runs()))

    @admin.action(description="Change priority of waiting runs…", permissions=["change"])
    def change_priorities(self, request: Any, queryset: Any) -> Any:
        form = PriorityForm(request.POST if "apply" in request.POST else None)
        if form.is_valid():
            act = change_priority(self.get_queryset(request), form.cleaned_data["priority"])
            self._act(request, queryset, act)
            return None
        return TemplateResponse(
            request,
            "admin/reproq_prefork/taskrun/priority.html",
            {
                **page_context(self, request, "Change priority", crumb="Change priority"),
                "form": form,
                "run_ids": self._chosen(request, queryset),
                "action_checkbox_name": ACTION_CHECKBOX_NAME,
            },
        )

    def _act(self, request: Any, queryset: Any, act: Act) -> None:
        carry_out(self, request, self._chosen(request, queryset), act)

    def _chosen(self, request: Any, queryset: Any) -> list[int]:
        chosen = list(queryset.order_by("id").values_list("pk", flat=True)[: MAX_RUNS + 1])
        if len(chosen) > MAX_RUNS:
            self.message_user(
                request,
                f"Only the oldest {MAX_RUNS:,} of these runs were used; repeat the action for the others.",
                messages.WARNING,
            )
        return chosen[:MAX_RUNS]

    # The pages

    def get_urls(self) -> list[Any]:
        own = [
            path("queues/", self._guarded(self.queues_view), name="reproq_prefork_taskrun_queues"),
            *(
                # Any bigint: a restored row may have an id below zero.
                re_path(
                    rf"^(?P<run_id>-?[0-9]{{1,19}})/{act}/$",
                    self._guarded(view),
                    name=f"reproq_prefork_taskrun_{act}",
                )
                for act, view in (
                    ("requeue", self.requeue_view),
                    ("cancel", self.cancel_view),
                    ("priority", self.priority_view),
                )
            ),
        ]
        return own + super().get_urls()

    def _guarded(self, view: Any) -> Any:
        return self.admin_site.admin_view(view)

    def change_view(self, request: Any, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        try:
            run = self._runs().get(int(object_id))
        except (ValueError, ReproqError):
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
        context = {
            **page_context(self, request, f"Run {run.id}", crumb=f"Run {run.id}"),
            **run_context(run, self._reads().replays_of(run.id, run.spec_hash)),
            "may_change": self.has_change_permission(request),
            "priority_form": PriorityForm(initial={"priority": run.priority}),
        }
        return TemplateResponse(request, "admin/reproq_prefork/taskrun/run.html", context)

    def requeue_view(self, request: Any, run_id: str) -> Any:
        return self._act_on_one(request, run_id, requeue(self._runs()))

    def cancel_view(self, request: Any, run_id: str) -> Any:
        return self._act_on_one(request, run_id, cancel(self._runs()))

    def priority_view(self, request: Any, run_id: str) -> Any:
        form = PriorityForm(request.POST)
        if request.method == "POST" and not form.is_valid():
            self.message_user(request, " ".join(map(str, form.errors["priority"])), messages.ERROR)
            return HttpResponseRedirect(self._page_of(run_id))
        priority = form.cleaned_data["priority"] if form.is_valid() else 0
        return self._act_on_one(request, run_id, change_priority(self.get_queryset(request), priority))

    def _act_on_one(self, request: Any, run_id: str, act: Act) -> Any:
        if not self.has_change_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not -(2**63) <= int(run_id) < 2**63:
            raise Http404
        carry_out(self, request, [int(run_id)], act)
        return HttpResponseRedirect(self._page_of(run_id))

    def queues_view(self, request: Any) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **page_context(self, request, "Queues", crumb="Queues"),
            "queues": queue_rows(self._reads()),
            "max_recent_runs": MAX_RECENT_RUNS,
        }
        return TemplateResponse(request, "admin/reproq_prefork/taskrun/queues.html", context)

    def _page_of(self, run_id: str) -> str:
        return reverse("admin:reproq_prefork_taskrun_change", args=[run_id], current_app=self.admin_site.name)

    def _runs(self) -> TaskRuns:
        return TaskRuns(DjangoSender(own_alias()))

    def _reads(self) -> OperatorReads:
        return OperatorReads(DjangoSender(own_alias()).fetch)
