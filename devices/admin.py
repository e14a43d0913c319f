from __future__ import annotations

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from devices import models
from fleet.audit.admin import AuditedAdmin
from fleet.read_only import ReadOnly


@admin.register(models.HardwareProfile)
class HardwareProfileAdmin(AuditedAdmin):
    list_display = ["name", "core", "runtime", "rtos", "slot_bytes", "sram_bytes", "reserved_sram_bytes"]
    search_fields = ["name"]


@admin.register(models.FirmwareBuild)
class FirmwareBuildAdmin(AuditedAdmin):
    list_display = ["name", "runtime", "agent_version", "decoder_profile", "io_hash"]
    search_fields = ["name"]


@admin.register(models.Node)
class NodeAdmin(AuditedAdmin):
    list_display = ["endpoint", "link", "profile", "firmware_build", "site"]
    list_select_related = ["profile", "firmware_build"]
    list_filter = ["link", "profile"]
    search_fields = ["endpoint", "site"]
    autocomplete_fields = ["profile", "firmware_build"]
    # Only the node itself says what it holds.
    readonly_fields = ["active_digest", "standby_digest", "sequence", "created_at"]
    show_full_result_count = False

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [*self.readonly_fields, "endpoint", "link"] if obj else self.readonly_fields

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        # Its place in campaigns and their tallies would go with it.
        return False


@admin.register(models.UnknownEndpoint)
class UnknownEndpointAdmin(ReadOnly):
    list_display = ["endpoint", "link", "address", "attempts", "last_seen_at"]


@admin.register(models.Delivery)
class DeliveryAdmin(ReadOnly):
    list_display = ["id", "node", "link", "reference", "state", "bytes_sent", "updated_at"]
    list_select_related = ["node"]
    list_filter = ["link", "state"]
    exclude = ["token"]


@admin.register(models.LinkEvent)
class LinkEventAdmin(ReadOnly):
    list_display = ["id", "at", "kind", "node", "reference", "cause"]
    list_select_related = ["node"]
    list_filter = ["kind"]
