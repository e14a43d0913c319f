"""Addresses of the dashboard."""

from __future__ import annotations

from django.urls import include, path

from frontend import campaign_views, views

urlpatterns = [
    path("", include("frontend.account_urls")),
    path("", views.fleet, name="fleet"),
    path("nodes/", views.nodes, name="nodes"),
    path("nodes/count/", views.node_count, name="node-count"),
    path("nodes/<int:node_id>/", views.node, name="node"),
    path("models/", views.versions, name="versions"),
    path("models/upload/", views.upload, name="version-upload"),
    path("models/<int:version_id>/", views.version, name="version"),
    path("campaigns/", campaign_views.campaigns, name="campaigns"),
    path("campaigns/new/", campaign_views.new, name="campaign-new"),
    path("campaigns/<int:campaign_id>/", campaign_views.campaign, name="campaign"),
    path("campaigns/<int:campaign_id>/plan/", campaign_views.plan, name="campaign-plan"),
    path("campaigns/<int:campaign_id>/halt/", campaign_views.halt, name="campaign-halt"),
    path("campaigns/<int:campaign_id>/<slug:action>/", campaign_views.act, name="campaign-action"),
]
