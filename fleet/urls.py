"""The composition root: the one place that sees every app's addresses."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from fleet.api import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path("", include("fleet.status.urls")),
    path("", include("frontend.urls")),
]
