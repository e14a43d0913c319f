"""Addresses of the dashboard."""

from __future__ import annotations

from django.urls import include, path

from frontend import (
    builder_views,
    campaign_views,
    hardware_views,
    many_nodes_views,
    model_views,
    network_views,
    node_views,
    views,
)

urlpatterns = [
    path("", include("frontend.account_urls")),
    path("", views.fleet, name="fleet"),
    path("nodes/", node_views.nodes, name="nodes"),
    path("nodes/unknown/", hardware_views.unknown, name="nodes-unknown"),
    path("nodes/new/", hardware_views.new_node, name="node-new"),
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
    path("hardware/", hardware_views.hardware, name="hardware"),
    path("hardware/profiles/new/", hardware_views.new_profile, name="hardware-profile-new"),
    path("hardware/firmware-builds/new/", hardware_views.new_firmware_build, name="hardware-firmware-new"),
    path("models/", model_views.versions, name="versions"),
    path("models/upload/", model_views.upload, name="version-upload"),
    path("models/compare/", model_views.compare, name="version-compare"),
    path("models/<int:version_id>/", model_views.version, name="version"),
    path("models/images/<str:digest>/guard.h", model_views.guard_header, name="image-guard"),
    path("models/<int:version_id>/dossier/", model_views.dossier, name="version-dossier"),
    path("models/<int:version_id>/dossier/signed/", model_views.dossier_file, name="version-dossier-file"),
    path("models/<int:version_id>/memory/", model_views.memory, name="version-memory"),
    path("patches/", model_views.patches, name="patches"),
    path("patches/<int:patch_id>/build-again/", model_views.build_patch_again, name="patch-build-again"),
    path("network-servers/", network_views.servers, name="servers"),
    path("network-servers/new/", network_views.edit, name="server-new"),
    path("network-servers/<int:server_id>/", network_views.edit, name="server-edit"),
    path("network-servers/<int:server_id>/<slug:action>/", network_views.act, name="server-action"),
    path("campaigns/", campaign_views.campaigns, name="campaigns"),
    path("campaigns/new/", builder_views.new, name="campaign-new"),
    path("campaigns/new/count/", builder_views.filter_count, name="campaign-filter"),
    path("campaigns/<int:campaign_id>/", campaign_views.campaign, name="campaign"),
    path("campaigns/<int:campaign_id>/plan/", campaign_views.plan, name="campaign-plan"),
    path("campaigns/<int:campaign_id>/halt/", campaign_views.halt, name="campaign-halt"),
    path("campaigns/<int:campaign_id>/<slug:action>/", campaign_views.act, name="campaign-action"),
]
