"""Addresses of health, metrics and the status page."""

from __future__ import annotations

from django.urls import path

from fleet.status import views

urlpatterns = [
    path("health/live", views.live, name="health-live"),
    path("health/ready", views.ready, name="health-ready"),
    path("metrics", views.metrics, name="metrics"),
    path("status/", views.page, name="status"),
]
