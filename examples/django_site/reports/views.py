"""Order a report, watch it, read it, or cancel it. The task result holds everything about it."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from reports.tasks import TaskResultDoesNotExist, make_report

YEARS = range(2026, 2020, -1)
MAX_LISTED = 10


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    reports = [state(result) for result in map(find, ordered_by(request)) if result is not None]
    return render(request, "reports/index.html", {"years": YEARS, "reports": reports})


@require_POST
def order(request: HttpRequest) -> HttpResponse:
    year = request.POST.get("year", "")
    if year not in map(str, YEARS):
        raise Http404("There are no sales for that year.")
    result = make_report.enqueue(year=int(year))
    request.session["reports"] = [result.id, *ordered_by(request)][:MAX_LISTED]
    return redirect("report", result.id)


@require_safe
def report(request: HttpRequest, result_id: str) -> HttpResponse:
    return render(request, "reports/report.html", {"report": state(find_own(request, result_id))})


@require_safe
def report_state(request: HttpRequest, result_id: str) -> JsonResponse:
    """The page asks for this while the report is being made."""
    return JsonResponse(state(find_own(request, result_id)))


@require_POST
def cancel(request: HttpRequest, result_id: str) -> HttpResponse:
    find_own(request, result_id).cancel()
    return redirect("report", result_id)


def ordered_by(request: HttpRequest) -> list[str]:
    """The ids of this browser's reports, newest first. Ids can be guessed, so each page checks them here first."""
    return list(request.session.get("reports", []))


def find_own(request: HttpRequest, result_id: str) -> Any:
    result = find(result_id) if result_id in ordered_by(request) else None
    if result is None:
        raise Http404("You have not ordered such a report.")
    return result


def find(result_id: str) -> Any:
    """The result, or None if it has been pruned."""
    try:
        return make_report.get_result(result_id)
    except TaskResultDoesNotExist:
        return None


def state(result: Any) -> dict[str, Any]:
    """Everything that the pages show of a report."""
    progress = result.metadata or {}
    name = state_name(result)
    made = result.return_value if name == "ready" else None
    return {
        "id": result.id,
        "year": result.kwargs["year"],
        "state": name,
        "finished": result.is_finished,
        "done": progress.get("done", 0),
        "of": progress.get("of", 1),
        "step": progress.get("step", "") if name == "running" else "",
        "report": made and shown(made),
    }


def state_name(result: Any) -> str:
    if result.is_finished and result.status != "SUCCESSFUL":
        return "cancelled" if result.cancel_requested else "failed"
    if result.cancel_requested and not result.is_finished:
        return "stopping"
    return {"READY": "waiting", "RUNNING": "running", "SUCCESSFUL": "ready"}[str(result.status)]


def shown(made: dict[str, Any]) -> dict[str, Any]:
    """The report as it is shown. Each month has the length of its bar, in per cent of the longest."""
    most = max(month["amount"] for month in made["months"])
    return {
        "total": f"{made['total']:,}",
        "months": [
            {
                "name": month["month"],
                "amount": f"{month['amount']:,}",
                "percent": round(100 * month["amount"] / most),
            }
            for month in made["months"]
        ],
    }
