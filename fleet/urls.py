"""The composition root: the one place that sees every app's addresses."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from devices.links.lorawan.events import receive
from fleet.api import api

urlpatterns = [
    # One way in and one place for passwords: those that are throttled and written down.
    path("admin/login/", RedirectView.as_view(pattern_name="login", query_string=True)),
    path("admin/logout/", RedirectView.as_view(pattern_name="fleet")),
    path("admin/password_change/", RedirectView.as_view(pattern_name="account")),
    path("admin/", admin.site.urls),
    path("api/v1/", api.urls),
    path("links/lorawan/<int:server_id>/events", receive, name="lorawan-events"),
    path("", include("fleet.status.urls")),
    path("", include("frontend.urls")),
]
