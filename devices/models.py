"""Who is out there and how they are reached.

`Delivery` rows are what links have to do; `LinkEvent` rows are what happened. Links know no campaign: the
reference of a delivery belongs to whoever made it.
"""

from __future__ import annotations

import hashlib
import re
import zoneinfo
from functools import cache
from typing import cast

import cbor2
from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Cast

from devices.links.lorawan.models import (  # noqa: F401 - Django looks for models here
    CommandExchange,
    FragmentSession,
    LoRaWanDevice,
    NetworkEvent,
    NetworkServer,
    NodeRadio,
)
from fleet.blobs.models import Blob

# Public keys that the agent holds (MF_KEYS_MAX).
KEYS_MAX = 2
HEX_DIGEST = "^[0-9a-f]{64}$"
DEV_EUI = re.compile("[0-9a-f]{16}")
# A short digest is what an 11-byte state report has room for: the first 4 bytes, in hex.
HEX_DIGEST_OR_PREFIX = "^([0-9a-f]{64}|[0-9a-f]{8})?$"


@cache
def available_time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def known_time_zone(name: str) -> None:
    if name not in available_time_zones():
        raise ValidationError(f"{name!r} is no time zone of the IANA database; give one such as Europe/Berlin.")


class Runtime(models.TextChoices):
    TFLM = "tflm", "TensorFlow Lite Micro"
    STM32CUBEAI = "stm32cubeai", "STM32Cube.AI"
    TVM = "tvm", "TVM"


class LinkKind(models.TextChoices):
    NBIOT = "nbiot", "NB-IoT (LwM2M)"
    LORAWAN = "lorawan", "LoRaWAN"


class HardwareProfile(models.Model):
    """A class of hardware. Sizes in bytes."""

    name = models.SlugField(max_length=64, unique=True)
    core = models.CharField(max_length=32, default="cortex-m4f")
    chip = models.CharField(max_length=32, blank=True, help_text="part number, such as stm32l476rg")
    clock_hz = models.PositiveBigIntegerField(default=80_000_000)
    runtime = models.CharField(max_length=16, choices=Runtime.choices, default=Runtime.TFLM)
    kernel_library = models.CharField(
        max_length=16, choices=[("reference", "reference"), ("cmsis-nn", "CMSIS-NN")], default="cmsis-nn"
    )
    rtos = models.CharField(
        max_length=16, choices=[("zephyr", "Zephyr"), ("freertos", "FreeRTOS"), ("none", "none")], default="zephyr"
    )
    slot_bytes = models.PositiveIntegerField(help_text="one model slot; there are two")
    flash_erase_bytes = models.PositiveIntegerField(default=4096)
    flash_write_bytes = models.PositiveIntegerField(default=8)
    sram_bytes = models.PositiveIntegerField()
    reserved_sram_bytes = models.PositiveIntegerField(help_text="what the RTOS and the application keep")
    arena_fraction = models.FloatField(default=0.70, validators=[MinValueValidator(0.05), MaxValueValidator(1.0)])
    alignment = models.PositiveSmallIntegerField(default=16)
    cache_line_bytes = models.PositiveSmallIntegerField(default=0, help_text="0: no cache")
    slot_read_bytes_per_second = models.PositiveBigIntegerField(default=40_000_000)
    latency_deadline_ms = models.PositiveIntegerField(null=True, blank=True)
    battery_joules = models.FloatField(null=True, blank=True)
    radio_joules_per_kibibyte = models.FloatField(null=True, blank=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(reserved_sram_bytes__lt=models.F("sram_bytes")), name="profile_sram_left"
            ),
            models.CheckConstraint(
                condition=Q(arena_fraction__gt=0, arena_fraction__lte=1), name="profile_arena_fraction"
            ),
            models.CheckConstraint(condition=Q(slot_bytes__gt=0, alignment__gt=0), name="profile_sizes_positive"),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        # Empty where a form has left them out, which it says itself.
        sram, reserved = cast("int | None", self.sram_bytes), cast("int | None", self.reserved_sram_bytes)
        if sram is not None and reserved is not None and reserved >= sram:
            raise ValidationError(
                {"reserved_sram_bytes": f"{reserved} bytes of {sram} are reserved; leave some for the arena."}
            )

    @property
    def arena_limit_bytes(self) -> int:
        return int((self.sram_bytes - self.reserved_sram_bytes) * self.arena_fraction)


def _check_key_ids(value: object) -> None:
    fine = isinstance(value, list) and len(value) <= KEYS_MAX and all(isinstance(one, str) for one in value)
    if not fine or not all(re.fullmatch("[0-9a-f]{8}", one) for one in value):  # type: ignore[attr-defined]
        raise ValidationError(f"Give at most {KEYS_MAX} key ids, each of 8 lower-case hexadecimal digits.")


class FirmwareBuild(models.Model):
    """What a node's firmware can take. Nodes report it; it belongs to the firmware, not to the hardware."""

    name = models.SlugField(max_length=64, unique=True)
    runtime = models.CharField(max_length=16, choices=Runtime.choices, default=Runtime.TFLM)
    agent_version = models.PositiveSmallIntegerField(default=1)
    operators = models.JSONField(default=list, help_text="names of the built-in operators, sorted")
    decoder_profile = models.CharField(
        max_length=8, choices=[("none", "none"), ("bsdiff", "bsdiff"), ("s", "S"), ("l", "L")], default="bsdiff"
    )
    decoder_ram_bytes = models.PositiveIntegerField(default=0)
    arena_bytes = models.PositiveIntegerField(null=True, blank=True, help_text="fixed when the firmware was built")
    io_hash = models.CharField(max_length=8, validators=[RegexValidator("^[0-9a-f]{8}$")])
    forward_error_correction = models.CharField(max_length=16, blank=True)
    # What a compiler reported of the network in it (updates.pipeline.reports): new weights must match that.
    network_report = models.JSONField(null=True, blank=True, editable=False)
    # Ids of the public keys that it verifies manifests with, two at most; empty where nobody has said.
    key_ids = models.JSONField(default=list, blank=True, validators=[_check_key_ids])

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def class_hash(self) -> str:
        """8 hex digits that a manifest must carry for this firmware to take it: runtime, ABI, op set, I/O contract."""
        items = [self.runtime, self.agent_version, sorted(self.operators), self.io_hash]
        return hashlib.sha256(cbor2.dumps(items, canonical=True)).hexdigest()[:8]


class Node(models.Model):
    """One microcontroller in the field. Liveness is kept apart, in NodePresence."""

    endpoint = models.CharField(max_length=64, unique=True, help_text="LwM2M endpoint name or DevEUI")
    link = models.CharField(max_length=16, choices=LinkKind.choices)
    profile = models.ForeignKey(HardwareProfile, on_delete=models.PROTECT, related_name="nodes")
    firmware_build = models.ForeignKey(
        FirmwareBuild, on_delete=models.PROTECT, related_name="nodes", null=True, blank=True
    )
    site = models.CharField(max_length=64, blank=True)
    labels = models.JSONField(default=dict, blank=True)
    time_zone = models.CharField(max_length=64, blank=True, validators=[known_time_zone], help_text="empty: UTC")
    # A node's own values beat its profile's.
    slot_bytes = models.PositiveIntegerField(null=True, blank=True)
    sram_bytes = models.PositiveIntegerField(null=True, blank=True)
    reserved_sram_bytes = models.PositiveIntegerField(null=True, blank=True)
    # What the node itself last said that it holds: a whole digest, its first 8 hex digits, or empty.
    active_digest = models.CharField(max_length=64, blank=True, validators=[RegexValidator(HEX_DIGEST_OR_PREFIX)])
    standby_digest = models.CharField(max_length=64, blank=True, validators=[RegexValidator(HEX_DIGEST_OR_PREFIX)])
    sequence = models.PositiveBigIntegerField(default=0, help_text="of the last assignment that the node accepted")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(fields=["profile", "id"], name="node_by_profile"),
            models.Index(fields=["firmware_build", "id"], name="node_by_firmware_build"),
            models.Index(fields=["site", "id"], name="node_by_site"),
            models.Index(fields=["time_zone"], name="node_by_time_zone"),
            models.Index(fields=["active_digest", "id"], name="node_by_active_digest"),
            GinIndex(fields=["labels"], name="node_labels"),
            # Patterns: whatever stands around the star.
            GinIndex(OpClass("endpoint", name="gin_trgm_ops"), name="node_endpoint_pattern"),
            GinIndex(OpClass(Cast("labels", models.TextField()), name="gin_trgm_ops"), name="node_label_pattern"),
        ]
        constraints = [
            models.CheckConstraint(condition=~Q(endpoint=""), name="node_endpoint_not_empty"),
            models.CheckConstraint(
                condition=Q(active_digest__regex=HEX_DIGEST_OR_PREFIX, standby_digest__regex=HEX_DIGEST_OR_PREFIX),
                name="node_digests_are_hex",
            ),
        ]

    def __str__(self) -> str:
        return self.endpoint

    def clean(self) -> None:
        """A DevEUI is kept as events write it: people copy it from labels in capitals."""
        if self.link == LinkKind.LORAWAN:
            self.endpoint = self.endpoint.lower()
            if not DEV_EUI.fullmatch(self.endpoint):
                words = f"{self.endpoint!r} is no DevEUI. Write its 16 hex digits, without separators."
                raise ValidationError({"endpoint": words})


class NodePresence(models.Model):
    """Liveness in a narrow table of its own, written in batches, so that no index of Node is touched by a sign of life."""

    node = models.OneToOneField(Node, on_delete=models.CASCADE, primary_key=True, related_name="presence")
    last_seen_at = models.DateTimeField()
    awake_until = models.DateTimeField(null=True)
    report_interval_s = models.FloatField(null=True, help_text="smoothed time between signs of life, seconds")
    battery_percent = models.PositiveSmallIntegerField(null=True)
    address = models.CharField(max_length=64, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["last_seen_at", "node"], name="presence_by_last_seen"),
            models.Index(fields=["battery_percent", "node"], name="presence_by_battery"),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} {self.last_seen_at:%Y-%m-%d %H:%M}"


class NodeHealth(models.Model):
    """The newest health report of a node: counters since its image was activated, and the image (`active_prefix`).

    Field names of devices.wire.HealthReport.
    """

    node = models.OneToOneField(Node, on_delete=models.CASCADE, primary_key=True, related_name="health")
    at = models.DateTimeField()
    counters = models.JSONField()

    def __str__(self) -> str:
        return f"{self.node_id} {self.at:%Y-%m-%d %H:%M}"


class UnknownEndpoint(models.Model):
    """An endpoint that spoke to a link and is not registered here: refused, and shown to the operator."""

    link = models.CharField(max_length=16, choices=LinkKind.choices)
    endpoint = models.CharField(max_length=64)
    address = models.CharField(max_length=64, blank=True)
    missing = models.CharField(
        max_length=200, blank=True, db_default="", help_text="what it takes to register it, where the link knows"
    )
    attempts = models.PositiveIntegerField(default=1)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["link", "endpoint"], name="unknown_endpoint_once")]

    def __str__(self) -> str:
        return f"{self.endpoint} over {self.link}"


class KnownImage(models.Model):
    """A digest that nodes may report, so that a 4-byte prefix in a report finds its whole digest."""

    digest = models.CharField(max_length=64, primary_key=True, validators=[RegexValidator(HEX_DIGEST)])
    # Unique: two images that share a prefix could not be told apart in a report, so the second is refused.
    prefix = models.CharField(max_length=8, unique=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(digest__startswith=models.F("prefix")), name="known_image_prefix_fits"),
        ]

    def __str__(self) -> str:
        return self.prefix


class Offering(models.Model):
    """Bundles that are offered together: the link picks one by the base that it reads from the node."""

    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"offering {self.pk}"


class OfferedBundle(models.Model):
    """One bundle of an offering. `base_digest` is empty for the full image, which any node may take."""

    offering = models.ForeignKey(Offering, on_delete=models.CASCADE, related_name="bundles")
    base_digest = models.CharField(max_length=64, blank=True)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["offering", "base_digest"], name="one_bundle_a_base")]

    def __str__(self) -> str:
        return f"{self.offering_id} from {self.base_digest[:12] or 'any'}"


class DeliveryState(models.TextChoices):
    WAITING = "waiting", "waiting for the node to wake"
    OFFERED = "offered", "offered"
    TRANSFERRING = "transferring", "transferring"
    DELIVERED = "delivered", "delivered"
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"


OPEN_DELIVERY = [DeliveryState.WAITING, DeliveryState.OFFERED, DeliveryState.TRANSFERRING]


class Delivery(models.Model):
    """What a link has to bring to a node: one of an offering's bundles, or a command of a few bytes."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="deliveries")
    link = models.CharField(max_length=16, choices=LinkKind.choices)
    reference = models.BigIntegerField(help_text="belongs to whoever asked; the link only returns it in events")
    offering = models.ForeignKey(Offering, on_delete=models.PROTECT, null=True, related_name="deliveries")
    command = models.BinaryField(null=True, max_length=64)
    state = models.CharField(max_length=16, choices=DeliveryState.choices, default=DeliveryState.WAITING)
    # Part of the address that a node pulls from: knowing it is the right to pull, so it is not guessable.
    token = models.CharField(max_length=43, unique=True)
    bundle = models.ForeignKey(OfferedBundle, on_delete=models.PROTECT, null=True, related_name="+")
    bytes_sent = models.PositiveBigIntegerField(default=0, help_text="payload bytes that left, repeats included")
    held = models.BooleanField(default=False, help_text="the node may take it but not be told to switch yet")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["node"], name="delivery_open_by_node", condition=Q(state__in=OPEN_DELIVERY)),
            models.Index(fields=["reference"], name="delivery_by_reference"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(offering__isnull=False, command__isnull=True)
                | Q(offering__isnull=True, command__isnull=False),
                name="delivery_is_bundle_or_command",
            ),
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="delivery_state_is_known"),
            models.UniqueConstraint(
                fields=["reference"], condition=Q(state__in=OPEN_DELIVERY), name="delivery_open_once"
            ),
        ]

    def __str__(self) -> str:
        return f"delivery {self.pk} to {self.node_id}: {self.state}"


class LinkEventKind(models.TextChoices):
    OFFERED = "offered", "offered"
    PROGRESS = "progress", "progress"
    DELIVERED = "delivered", "delivered"
    FAILED = "failed", "failed"
    REPORT = "report", "report"
    HOLDS = "holds", "holds"


# Cause of a REPORT of success whose node did not let its link read what it really runs.
UNPROVED = "unproved"


class LinkEvent(models.Model):
    """What a link saw. Append-only; the table is partitioned by month on `at` (key: id, at).

    OFFERED and DELIVERED name the delivery; PROGRESS adds received and total bytes; FAILED a cause; REPORT the
    bytes of a node report; HOLDS the whole digest that a node said it runs (64 hex digits, or empty).
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    link = models.CharField(max_length=16, choices=LinkKind.choices)
    kind = models.CharField(max_length=16, choices=LinkEventKind.choices)
    node = models.ForeignKey(Node, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    delivery_id = models.BigIntegerField(null=True)
    reference = models.BigIntegerField(null=True)
    received_bytes = models.PositiveIntegerField(null=True)
    total_bytes = models.PositiveIntegerField(null=True)
    cause = models.CharField(max_length=64, blank=True)
    payload = models.BinaryField(null=True, max_length=512)
    digest = models.CharField(max_length=64, blank=True)
    drained_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], name="link_event_undrained", condition=Q(drained_at__isnull=True)),
            models.Index(fields=["node", "-id"], name="link_event_by_node"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.node_id} at {self.at:%Y-%m-%d %H:%M:%S}"


class SavedView(models.Model):
    """A filter of nodes under a name: its owner's alone, or shared with everybody."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="views", db_index=False)
    name = models.CharField(max_length=64)
    node_filter = models.CharField(max_length=1000, blank=True)
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name", "id"]
        indexes = [models.Index(fields=["name", "id"], name="saved_view_shared", condition=Q(shared=True))]
        constraints = [
            # Also the index of the foreign key.
            models.UniqueConstraint(fields=["owner", "name"], name="saved_view_name_once_an_owner"),
            models.CheckConstraint(condition=~Q(name=""), name="saved_view_has_a_name"),
        ]

    def __str__(self) -> str:
        return self.name
