from __future__ import annotations

from django.urls import path

from reports import views

urlpatterns = [
    path("", views.index, name="index"),
    path("reports/", views.order, name="order"),
    path("reports/<str:result_id>/", views.report, name="report"),
    path("reports/<str:result_id>/state", views.report_state, name="report_state"),
    path("reports/<str:result_id>/cancel", views.cancel, name="cancel"),
]
