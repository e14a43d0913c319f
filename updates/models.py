"""What is sent, to whom, when, and whether it may go on."""

from __future__ import annotations

import secrets

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

from devices.models import HardwareProfile, KnownImage, Node
from fleet.blobs.models import Blob
from updates.campaigns.deadlines import OFFER_TIMEOUT_S, PATCH_DEADLINE_S, PROGRESS_TIMEOUT_S
from updates.pipeline.evidence import Measured
from updates.pipeline.types import TASKS
from updates.states import (
    FAULTS,
    OPEN_STATES,
    CampaignState,
    NodeUpdateState,
    PatchDecoder,
    PatchState,
    VersionState,
    WaveState,
)


def _random_model_id() -> str:
    return secrets.token_hex(4)


class ModelFamily(models.Model):
    """A family of versions with one input and output contract."""

    name = models.SlugField(max_length=64, unique=True)
    model_id = models.CharField(
        max_length=8, unique=True, default=_random_model_id, help_text="4 bytes in each manifest"
    )
    # auto: told from the labels and outputs of each upload.
    task = models.CharField(max_length=16, choices=[(one, one) for one in ("auto", *TASKS)], default="auto")
    preprocessing = models.CharField(
        max_length=64, default="none", help_text="name of what the firmware does to raw data"
    )
    class_names = models.JSONField(default=list, blank=True)
    # Field names of updates.pipeline.types.ValidationLimits; what is left out has its default.
    limits = models.JSONField(default=dict, blank=True)
    # Field names of updates.pipeline.types.Signal: which dimension of a sample is time, and how fast it was sampled.
    signal = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "model families"

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """One immutable upload: ONNX, calibration and evaluation data."""

    family = models.ForeignKey(ModelFamily, on_delete=models.PROTECT, related_name="versions")
    name = models.CharField(max_length=32, validators=[RegexValidator(r"^[0-9A-Za-z][0-9A-Za-z.+_-]*$")])
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 over the digests of the three files")
    onnx = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    calibration = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    evaluation = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=16, choices=VersionState.choices, default=VersionState.UPLOADED)
    stage = models.CharField(max_length=16, blank=True)
    progress_percent = models.PositiveSmallIntegerField(default=0)
    # Why it was refused: stage, code, field, message, fix.
    refusal = models.JSONField(null=True, blank=True)
    tools = models.JSONField(default=dict, blank=True)
    # What the build found besides images: left_out, fp32_latency_ms, curve (docs/evaluation.md).
    evidence = models.JSONField(default=dict, blank=True)
    # Somebody asked to have its images judged for profiles that were made after it was built (updates.judging).
    judge_again = models.BooleanField(default=False)
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    uploaded_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # Of the newest attempt; time left is told from it.
    build_started_at = models.DateTimeField(null=True, blank=True)
    built_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["id"], name="version_to_build", condition=Q(state__in=["uploaded", "building"])),
            models.Index(fields=["id"], name="version_to_judge_again", condition=Q(judge_again=True)),
        ]
        constraints = [
            models.UniqueConstraint(fields=["family", "name"], name="version_name_once_a_family"),
            models.CheckConstraint(condition=Q(state__in=VersionState.values), name="version_state_is_known"),
            models.CheckConstraint(
                condition=~Q(state="refused") | Q(refusal__isnull=False), name="version_refusal_has_a_reason"
            ),
            models.CheckConstraint(
                condition=Q(judge_again=False) | Q(state="ready"), name="version_judged_again_is_ready"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


class ModelImage(models.Model):
    """The exact bytes of a model slot, built from a version for a target class."""

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="images")
    runtime = models.CharField(max_length=16)
    precision = models.CharField(max_length=16)
    granularity = models.CharField(max_length=24)
    alignment = models.PositiveSmallIntegerField()
    known = models.OneToOneField(KnownImage, on_delete=models.PROTECT, related_name="image", db_column="digest")
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    size = models.PositiveIntegerField(help_text="bytes")
    arena_bytes = models.PositiveIntegerField(help_text="bisected minimum")
    operators = models.JSONField()
    io_hash = models.CharField(max_length=8)
    self_test_digest = models.CharField(max_length=16)
    facts = models.JSONField(default=dict, help_text="shapes, types and scales of input and output")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "runtime", "precision", "granularity", "alignment"], name="image_once_a_target_class"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.precision} ({self.size} B)"

    @property
    def digest(self) -> str:
        return str(self.known_id)


class Fit(models.Model):
    """Whether an image runs on a profile, with the numbers and the reasons. The profile gets the image of rank 0 if it fits;
    the others of the version follow, best first."""

    image = models.ForeignKey(ModelImage, on_delete=models.CASCADE, related_name="fits")
    profile = models.ForeignKey(HardwareProfile, on_delete=models.CASCADE, related_name="fits")
    fits = models.BooleanField()
    rank = models.PositiveSmallIntegerField(default=0)
    numbers = models.JSONField()
    reasons = models.JSONField(default=list)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["image", "profile"], name="fit_once")]

    def __str__(self) -> str:
        return f"{self.image} on {self.profile}: {'fits' if self.fits else 'does not fit'}"


class FieldEvidence(models.Model):
    """What the nodes of a profile that run an image say of it in their health reports: of each figure the worst.

    `nodes` said something, of which `arena_nodes` named an arena and `p99_nodes` a latency. It stays when the last of them
    has gone on to another image.
    """

    image = models.ForeignKey(ModelImage, on_delete=models.CASCADE, related_name="field_evidence")
    profile = models.ForeignKey(HardwareProfile, on_delete=models.CASCADE, related_name="field_evidence")
    nodes = models.PositiveIntegerField()
    arena_bytes = models.PositiveBigIntegerField(null=True)
    arena_nodes = models.PositiveIntegerField()
    p99_us = models.PositiveBigIntegerField(null=True)
    p99_nodes = models.PositiveIntegerField()
    inferences = models.PositiveBigIntegerField()
    deadline_misses = models.PositiveBigIntegerField()
    missing_nodes = models.PositiveIntegerField()
    changed_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "field evidence"
        constraints = [models.UniqueConstraint(fields=["image", "profile"], name="field_evidence_once")]

    def __str__(self) -> str:
        return f"{self.image} on {self.profile}: {self.nodes} nodes"

    @property
    def measured(self) -> Measured:
        return Measured(
            nodes=self.nodes,
            arena_bytes=self.arena_bytes,
            arena_nodes=self.arena_nodes,
            p99_ms=None if self.p99_us is None else self.p99_us / 1000,
            p99_nodes=self.p99_nodes,
            inferences=self.inferences,
            deadline_misses=self.deadline_misses,
            missing_nodes=self.missing_nodes,
        )


class ValidationReport(models.Model):
    """fp32 against the exact quantized image, slice by slice."""

    image = models.OneToOneField(ModelImage, on_delete=models.CASCADE, related_name="validation")
    verdict = models.CharField(
        max_length=16, choices=[("passed", "passed"), ("failed", "failed"), ("inconclusive", "inconclusive")]
    )
    slices = models.JSONField()
    reasons = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"{self.image}: {self.verdict}"


class Patch(models.Model):
    """The bytes that turn a base image into a target image for nodes with one kind of decoder; built once for each pair
    and decoder, decoded back and compared."""

    base = models.ForeignKey(ModelImage, on_delete=models.CASCADE, related_name="patches_from")
    target = models.ForeignKey(ModelImage, on_delete=models.CASCADE, related_name="patches_to")
    decoder = models.CharField(max_length=8, choices=PatchDecoder.choices)
    state = models.CharField(max_length=16, choices=PatchState.choices, default=PatchState.WAITING)
    codec = models.PositiveSmallIntegerField(null=True, help_text="number of the codec as in the manifest")
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, null=True, related_name="+")
    build_ms = models.PositiveIntegerField(null=True)
    built_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    failure = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # Since when no node holds the base and no live campaign needs it, as the collector saw it.
    unneeded_since = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "patches"
        indexes = [
            models.Index(fields=["id"], name="patch_to_build", condition=Q(state="waiting")),
            models.Index(fields=["state", "-id"], name="patch_by_state"),
            models.Index(fields=["unneeded_since"], name="patch_to_collect", condition=Q(unneeded_since__isnull=False)),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=PatchState.values), name="patch_state_is_known"),
            models.UniqueConstraint(fields=["base", "target", "decoder"], name="patch_once_a_pair_and_decoder"),
            models.CheckConstraint(condition=Q(decoder__in=PatchDecoder.values), name="patch_decoder_is_known"),
            models.CheckConstraint(condition=~Q(base=models.F("target")), name="patch_between_two_images"),
            models.CheckConstraint(
                condition=~Q(state="ready") | Q(blob__isnull=False, codec__isnull=False), name="patch_ready_has_bytes"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.base.version} to {self.target.version} for {self.decoder}: {self.state}"

    @property
    def direction(self) -> str:
        """forward: to a version that came later; reverse: to an earlier one, or to another image of the same."""
        return "forward" if self.target.version_id > self.base.version_id else "reverse"


class SigningKey(models.Model):
    """A key that signs manifests, or did. Here is what anyone may know; the private key lies outside the database."""

    key_id = models.CharField(max_length=8, unique=True)
    public_key = models.CharField(max_length=64)
    active = models.BooleanField(default=False)
    added_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["active"], condition=Q(active=True), name="one_active_signing_key"),
            models.CheckConstraint(
                condition=Q(active=False) | Q(retired_at__isnull=True), name="signing_key_active_or_retired"
            ),
        ]

    def __str__(self) -> str:
        return self.key_id


class CampaignKind(models.TextChoices):
    UPDATE = "update", "update"
    ROLLBACK = "rollback", "rollback"


class EndBehaviour(models.TextChoices):
    FINISH = "finish", "finish what is open, offer nothing more"
    CANCEL = "cancel", "withdraw what is open"


class Membership(models.TextChoices):
    FIXED = "fixed", "the nodes of the plan"
    DYNAMIC = "dynamic", "nodes that match the filter, while it runs"


class Campaign(models.Model):
    """A rollout of one version, or the rollback of another campaign."""

    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=16, choices=CampaignKind.choices, default=CampaignKind.UPDATE)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="campaigns", null=True)
    reverts = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="rollbacks")
    node_filter = models.TextField(blank=True, help_text="filter language; empty means every node")
    state = models.CharField(max_length=16, choices=CampaignState.choices, default=CampaignState.DRAFT)
    # One sentence: why it stands as it does.
    reason = models.TextField(blank=True)
    # Field names of updates.campaigns.gates.GatePolicy.
    gate = models.JSONField(default=dict, blank=True)
    # A node whose own rhythm is slower has longer, see updates.campaigns.deadlines.
    offer_timeout_s = models.PositiveIntegerField(default=OFFER_TIMEOUT_S, help_text="fleet seconds until silent")
    progress_timeout_s = models.PositiveIntegerField(
        default=PROGRESS_TIMEOUT_S, help_text="fleet seconds without progress"
    )
    maximum_attempts = models.PositiveSmallIntegerField(default=3, help_text="of a node, while its failures may pass")
    full_image_allowed = models.BooleanField(default=True, help_text="where no patch leads to the new image")
    patch_deadline_s = models.PositiveIntegerField(
        default=PATCH_DEADLINE_S, help_text="fleet seconds that the campaign waits for its patches"
    )
    # From then on nothing waits for a patch. Later where a dynamic campaign asked for more.
    patches_due_at = models.DateTimeField(null=True, blank=True)
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True, help_text="nothing is offered from then on")
    end_behaviour = models.CharField(max_length=16, choices=EndBehaviour.choices, default=EndBehaviour.FINISH)
    # 0 to 100, the higher goes first where campaigns want the same node or the same free place.
    priority = models.PositiveSmallIntegerField(default=50)
    # Most open updates at once, by name of updates.campaigns.limits.NAMES.
    limits = models.JSONField(default=dict, blank=True)
    # {"transfer": [...], "activation": [...], "blackout": [...]}, see updates.campaigns.windows.Calendar.read.
    windows = models.JSONField(default=dict, blank=True)
    membership = models.CharField(max_length=16, choices=Membership.choices, default=Membership.FIXED)
    # Where the next tick goes on looking for nodes that match by now: an id of a node.
    membership_cursor = models.BigIntegerField(default=0)
    # Since when a planned update could have been offered and found no free place.
    crowded_since = models.DateTimeField(null=True, blank=True)
    # IANA name of the zone that starts_at was given in, and in which the plan is shown.
    time_zone = models.CharField(max_length=64, default="UTC")
    plan = models.JSONField(default=dict, help_text="what will happen, as computed before approval")
    plan_hash = models.CharField(max_length=64, blank=True)
    approved_hash = models.CharField(max_length=64, blank=True)
    # Stable: which wave a node is in depends on this and on the node alone.
    salt = models.CharField(max_length=32)
    # Manifest sequence: from one database sequence, so that a later assignment always has the higher one.
    sequence = models.PositiveBigIntegerField(unique=True)
    # 16 secret bytes; a node that is shown them goes back. Sealed with the key in settings.
    revert_preimage_sealed = models.BinaryField()
    idempotency_key = models.CharField(max_length=64, unique=True, null=True, blank=True)
    created_by = models.CharField(max_length=150)
    approved_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["id"], name="campaign_alive", condition=Q(state__in=["scheduled", "running"])),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=CampaignState.values), name="campaign_state_is_known"),
            models.CheckConstraint(
                condition=Q(kind="update", version__isnull=False, reverts__isnull=True)
                | Q(kind="rollback", reverts__isnull=False),
                name="campaign_has_an_aim",
            ),
            models.CheckConstraint(
                condition=Q(state="draft") | Q(state="aborted") | Q(approved_hash=models.F("plan_hash")),
                name="campaign_runs_as_approved",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(starts_at__isnull=True) | Q(ends_at__gt=models.F("starts_at")),
                name="campaign_ends_after_its_start",
            ),
            models.CheckConstraint(condition=Q(priority__lte=100), name="campaign_priority_in_range"),
            models.CheckConstraint(condition=Q(maximum_attempts__gte=1), name="campaign_tries_once_at_least"),
            # Rolling back twice at once would reveal one secret for two assignments.
            models.UniqueConstraint(
                fields=["reverts"],
                condition=Q(state__in=["draft", "scheduled", "running", "paused", "halted"]),
                name="one_live_rollback_a_campaign",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Wave(models.Model):
    """A stage of a campaign. `percent` is cumulative: 100 closes the last wave."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="waves")
    index = models.PositiveSmallIntegerField()
    percent = models.FloatField(validators=[MinValueValidator(0.0), MaxValueValidator(100.0)])
    soak_s = models.PositiveIntegerField(default=0, help_text="fleet seconds")
    state = models.CharField(max_length=16, choices=WaveState.choices, default=WaveState.WAITING)
    opened_at = models.DateTimeField(null=True)
    soak_until = models.DateTimeField(null=True)
    # Where the next tick goes on looking for planned updates that may be offered: an id of a node update.
    offer_cursor = models.BigIntegerField(default=0)
    # The newest decision with its numbers: verdict, reason, samples, failures, interval, limit.
    verdict = models.JSONField(null=True)

    class Meta:
        ordering = ["campaign", "index"]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "index"], name="wave_index_once"),
            models.CheckConstraint(condition=Q(percent__gt=0, percent__lte=100), name="wave_percent_in_range"),
            models.CheckConstraint(condition=Q(state__in=WaveState.values), name="wave_state_is_known"),
        ]

    def __str__(self) -> str:
        return f"wave {self.index + 1} of {self.campaign}"


class CampaignMove(models.Model):
    """Each change of state of a campaign or of one of its waves, with the reason that it had then.

    Written by triggers of the database, in the transaction that made the change: whoever makes it cannot forget it.
    """

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="moves", db_index=False)
    wave_index = models.PositiveSmallIntegerField(null=True, help_text="empty for the campaign itself")
    at = models.DateTimeField()
    from_state = models.CharField(max_length=16)
    to_state = models.CharField(max_length=16)
    reason = models.TextField(blank=True)

    class Meta:
        indexes = [models.Index(fields=["campaign", "-id"], name="campaign_move_by_campaign")]

    def __str__(self) -> str:
        return f"{self.campaign_id}: {self.from_state} to {self.to_state}"


class Method(models.TextChoices):
    PATCH = "patch", "patch, else full image"
    COMMAND = "command", "revert command"


class NodeUpdate(models.Model):
    """One node in one campaign."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="node_updates", db_index=False)
    wave = models.ForeignKey(Wave, on_delete=models.CASCADE, related_name="node_updates", db_index=False)
    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="node_updates")
    image = models.ForeignKey(ModelImage, on_delete=models.PROTECT, related_name="node_updates", null=True)
    method = models.CharField(max_length=16, choices=Method.choices, default=Method.PATCH)
    state = models.CharField(max_length=16, choices=NodeUpdateState.choices, default=NodeUpdateState.PLANNED)
    # Machine-readable; the words for each stand in updates.causes.
    cause = models.CharField(max_length=64, blank=True)
    base_digest = models.CharField(max_length=64, blank=True, help_text="what the node held when it was planned")
    received_bytes = models.PositiveIntegerField(default=0)
    total_bytes = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="that failed; sleep, pauses and cancels are none")
    not_before = models.DateTimeField(null=True, help_text="when the next attempt after a failed one may begin")
    due_at = models.DateTimeField(null=True, help_text="when silence counts")
    # Timers run in open windows only: what was left of this one when the window closed.
    remaining_s = models.FloatField(null=True, help_text="seconds of the clock")
    changed_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["wave", "state", "id"], name="node_update_by_wave"),
            models.Index(fields=["campaign", "state", "id"], name="node_update_by_campaign"),
            models.Index(fields=["image"], name="node_update_by_image"),
            models.Index(fields=["campaign", "due_at"], name="node_update_due", condition=Q(state__in=OPEN_STATES)),
            models.Index(fields=["node", "changed_at"], name="node_update_faults", condition=Q(state__in=FAULTS)),
            models.Index(fields=["node"], name="node_update_silent", condition=Q(state=NodeUpdateState.SILENT)),
            models.Index(
                fields=["id"], name="node_update_attention", condition=Q(state__in=[*FAULTS, NodeUpdateState.SILENT])
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["campaign", "node"], name="node_once_a_campaign"),
            models.UniqueConstraint(fields=["node"], condition=Q(state__in=OPEN_STATES), name="one_open_update_a_node"),
            models.CheckConstraint(condition=Q(state__in=NodeUpdateState.values), name="node_update_state_is_known"),
            models.CheckConstraint(
                condition=~Q(state__in=["failed", "rejected", "silent", "reverted", "skipped", "cancelled"])
                | ~Q(cause=""),
                name="node_update_end_has_a_cause",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node_id} in {self.campaign_id}: {self.state}"


class PenaltyRelease(models.Model):
    """A person let a node out of the penalty box: its faults before `at` count no more."""

    node = models.OneToOneField(Node, on_delete=models.CASCADE, primary_key=True, related_name="penalty_release")
    at = models.DateTimeField()
    by = models.CharField(max_length=150)

    def __str__(self) -> str:
        return f"{self.node_id} by {self.by}"


class Tally(models.Model):
    """How many node updates of a wave are in a state. Written in the transaction of each transition; gates read it."""

    wave = models.ForeignKey(Wave, on_delete=models.CASCADE, related_name="tallies", db_index=False)
    state = models.CharField(max_length=16, choices=NodeUpdateState.choices)
    count = models.IntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["wave", "state"], name="tally_once"),
            models.CheckConstraint(condition=Q(count__gte=0), name="tally_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.wave_id} {self.state}: {self.count}"


class UpdateEvent(models.Model):
    """Each transition, in the transaction that made it. Partitioned by month on `at` (key: id, at)."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    campaign = models.ForeignKey(
        Campaign, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    node = models.ForeignKey(Node, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    node_update_id = models.BigIntegerField()
    from_state = models.CharField(max_length=16, blank=True)
    to_state = models.CharField(max_length=16)
    cause = models.CharField(max_length=64, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["campaign", "-id"], name="update_event_by_campaign"),
            models.Index(fields=["node", "-id"], name="update_event_by_node"),
        ]

    def __str__(self) -> str:
        return f"{self.from_state} to {self.to_state}"


class ReconcileRun(models.Model):
    """The newest proofs that the books are right, for the metric: how many findings, and the first of them."""

    at = models.DateTimeField()
    took_ms = models.PositiveIntegerField()
    findings = models.PositiveIntegerField()
    examples = models.JSONField(default=list)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.findings} findings at {self.at:%Y-%m-%d %H:%M}"
