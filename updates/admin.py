from __future__ import annotations

from django.contrib import admin

from fleet.read_only import ReadOnly
from updates import models

# All of it is read only: versions are immutable, and campaigns change through their services alone, which keep tallies,
# events and the audit log right.


@admin.register(models.ModelFamily)
class ModelFamilyAdmin(ReadOnly):
    list_display = ["name", "model_id", "task", "preprocessing", "created_at"]
    search_fields = ["name", "model_id"]


@admin.register(models.ModelVersion)
class ModelVersionAdmin(ReadOnly):
    list_display = ["id", "family", "name", "state", "stage", "progress_percent", "attempts", "created_at"]
    list_select_related = ["family"]
    list_filter = ["state", "family"]
    search_fields = ["name", "digest"]
    # A blob's bytes have no place on a page.
    exclude = ["onnx", "calibration", "evaluation"]


@admin.register(models.ModelImage)
class ModelImageAdmin(ReadOnly):
    list_display = ["id", "version", "runtime", "precision", "granularity", "size", "arena_bytes", "known_id"]
    list_select_related = ["version__family"]
    list_filter = ["runtime", "precision"]
    search_fields = ["known__digest"]
    exclude = ["blob"]


@admin.register(models.Fit)
class FitAdmin(ReadOnly):
    list_display = ["id", "image", "profile", "fits"]
    list_select_related = ["image__version__family", "profile"]
    list_filter = ["fits", "profile"]


@admin.register(models.ValidationReport)
class ValidationReportAdmin(ReadOnly):
    list_display = ["id", "image", "verdict"]
    list_select_related = ["image__version__family"]
    list_filter = ["verdict"]


@admin.register(models.Patch)
class PatchAdmin(ReadOnly):
    list_display = ["id", "base", "target", "state", "codec", "build_ms", "attempts"]
    list_select_related = ["base__version__family", "target__version__family"]
    list_filter = ["state", "codec"]
    exclude = ["blob"]


@admin.register(models.Campaign)
class CampaignAdmin(ReadOnly):
    list_display = ["id", "name", "kind", "version", "state", "reason", "created_by", "approved_by", "created_at"]
    list_select_related = ["version__family"]
    list_filter = ["state", "kind"]
    search_fields = ["name"]
    # It stays sealed: with it, anyone on the link could send nodes back.
    exclude = ["revert_preimage_sealed"]


@admin.register(models.Wave)
class WaveAdmin(ReadOnly):
    list_display = ["id", "campaign", "index", "percent", "soak_s", "state", "opened_at", "soak_until"]
    list_select_related = ["campaign"]
    list_filter = ["state"]


@admin.register(models.NodeUpdate)
class NodeUpdateAdmin(ReadOnly):
    list_display = ["id", "campaign", "node", "method", "state", "cause", "received_bytes", "total_bytes", "changed_at"]
    list_select_related = ["campaign", "node"]
    list_filter = ["state", "method"]


@admin.register(models.UpdateEvent)
class UpdateEventAdmin(ReadOnly):
    list_display = ["id", "at", "campaign", "node", "from_state", "to_state", "cause"]
    list_select_related = ["campaign", "node"]
    list_filter = ["to_state"]
