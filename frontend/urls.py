"""Addresses of the dashboard."""

from __future__ import annotations

from django.urls import include, path

from frontend import campaign_views, many_nodes_views, node_views, views

urlpatterns = [
    path("", include("frontend.account_urls")),
    path("", views.fleet, name="fleet"),
    path("nodes/", node_views.nodes, name="nodes"),
    path("nodes/count/", node_views.node_count, name="node-count"),
    path("nodes/export/", node_views.export, name="nodes-export"),
    path("nodes/labels/", many_nodes_views.relabel_nodes, name="nodes-relabel"),
    path("nodes/import/", many_nodes_views.import_csv, name="nodes-import"),
    path("nodes/import/template/", many_nodes_views.import_template, name="nodes-import-template"),
    path("nodes/views/", many_nodes_views.save, name="node-view-save"),
    path("nodes/views/<int:view_id>/", many_nodes_views.change, name="node-view-change"),
    path("nodes/views/<int:view_id>/delete/", many_nodes_views.delete, name="node-view-delete"),
    path("nodes/<int:node_id>/", node_views.node, name="node"),
    path("nodes/<int:node_id>/timeline/", node_views.node_timeline, name="node-timeline"),
    path("nodes/<int:node_id>/labels/", node_views.describe, name="node-describe"),
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
