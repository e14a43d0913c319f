"""ChirpStack servers, how nodes are reached through them, and how far each delivery has got.

Foreign keys name their models as text: `devices.models` imports this module.
"""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from devices.links.lorawan.regions import DEFAULT_REGION, REGIONS

REGION_CHOICES = [(name, name) for name in REGIONS]


class EventEncoding(models.TextChoices):
    JSON = "json", "JSON"
    PROTOBUF = "protobuf", "Protobuf"


class NetworkServer(models.Model):
    """A ChirpStack v4. Its API token is sealed; of the secrets that its events bring only the hashes are kept."""

    name = models.SlugField(max_length=64, unique=True)
    target = models.CharField(
        max_length=255,
        validators=[RegexValidator(r"^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}$", "Write host:port.")],
        help_text="host:port of its gRPC API",
    )
    tls = models.BooleanField(default=False)
    token_sealed = models.BinaryField()
    tenant_id = models.CharField(
        max_length=36, blank=True, validators=[RegexValidator("^[0-9a-f-]{36}$", "Write the tenant's UUID.")]
    )
    region = models.CharField(max_length=16, choices=REGION_CHOICES, default=DEFAULT_REGION)
    event_base_url = models.URLField(max_length=255, help_text="where ChirpStack reaches this server")
    event_encoding = models.CharField(max_length=16, choices=EventEncoding.choices, default=EventEncoding.JSON)
    # More than one while a new secret is being handed out: the newest last.
    event_secret_hashes = models.JSONField(default=list)
    last_event_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    findings = models.JSONField(default=list, help_text="of the last check")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(event_encoding__in=EventEncoding.values), name="network_server_encoding_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def events_url(self) -> str:
        return f"{self.event_base_url.rstrip('/')}/links/lorawan/{self.pk}/events"


class LoRaWanDevice(models.Model):
    """How a node is reached, and what the link must do for it next.

    `due_at` is when a worker must look at it; `leased_until` keeps others away while one talks to ChirpStack.
    Requests are repeated by the number of `uplinks` that came since, never by the clock: a node asleep has not failed.
    """

    node = models.OneToOneField("devices.Node", on_delete=models.CASCADE, primary_key=True, related_name="lorawan")
    server = models.ForeignKey(NetworkServer, on_delete=models.CASCADE, related_name="devices")
    application_id = models.CharField(max_length=36, blank=True)
    device_profile_id = models.CharField(max_length=36, blank=True)
    region = models.CharField(max_length=16, choices=REGION_CHOICES)
    joined_at = models.DateTimeField(null=True)
    dev_addr = models.CharField(max_length=8, blank=True)
    frame_counter = models.BigIntegerField(default=-1, help_text="of the newest uplink of this session")
    data_rate = models.PositiveSmallIntegerField(null=True, help_text="of the newest uplink")
    uplinks = models.PositiveBigIntegerField(default=0)
    # Most bytes of a downlink, as ChirpStack said when it dropped a larger one, and the data rate at which it did.
    payload_limit = models.PositiveSmallIntegerField(null=True)
    payload_limit_rate = models.PositiveSmallIntegerField(null=True)
    # What the node proved to hold since it last joined: 64 hex digits, empty for no image, null: not known.
    holds = models.CharField(max_length=64, null=True)  # noqa: DJ001 - empty says something else than null
    digest_parts = models.JSONField(default=dict)
    last_report = models.BinaryField(null=True, max_length=11)
    # A report of success that waits for the digest which proves it.
    claim = models.BinaryField(null=True, max_length=11)
    asks = models.PositiveSmallIntegerField(default=0)
    asked_uplink = models.PositiveBigIntegerField(null=True)
    gateway_refusals = models.PositiveIntegerField(default=0, help_text="downlinks that no gateway could send")
    # Frames of a delivery that has ended may be in ChirpStack's queue: cleared once they are not.
    flush_due_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True)
    leased_until = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["due_at"], name="lorawan_device_due", condition=Q(due_at__isnull=False))]

    def __str__(self) -> str:
        return f"node {self.node_id} through {self.server_id}"


class NodeRadio(models.Model):
    """How well a node was heard last, in a narrow table that is written in batches."""

    node = models.OneToOneField("devices.Node", on_delete=models.CASCADE, primary_key=True, related_name="radio")
    at = models.DateTimeField()
    region = models.CharField(max_length=16)
    data_rate = models.PositiveSmallIntegerField(help_text="of the last uplink")
    rssi_dbm = models.SmallIntegerField(null=True)
    snr_db = models.FloatField(null=True)
    gateway_id = models.CharField(max_length=16, blank=True, help_text="the one that heard it best")
    frame_counter = models.PositiveBigIntegerField()

    def __str__(self) -> str:
        return f"{self.node_id} DR{self.data_rate}"


class SessionStage(models.TextChoices):
    BASE = "base", "waits for what the node holds"
    SETUP = "setup", "set-up sent"
    FEEDING = "feeding", "fragments on their way"
    ASKING = "asking", "asked what is missing"
    PROVING = "proving", "asked for its report"


class FragmentSession(models.Model):
    """How far a bundle has got. A fragment number is written here before the fragment is queued: none goes twice."""

    delivery = models.OneToOneField(
        "devices.Delivery", on_delete=models.CASCADE, primary_key=True, related_name="session"
    )
    stage = models.CharField(max_length=16, choices=SessionStage.choices, default=SessionStage.BASE)
    fragment_bytes = models.PositiveSmallIntegerField(default=0)
    fragments = models.PositiveSmallIntegerField(default=0)
    next_number = models.PositiveSmallIntegerField(default=1)
    last_number = models.PositiveSmallIntegerField(default=0, help_text="to send before the node is asked")
    told_number = models.PositiveSmallIntegerField(default=0, help_text="left the queue, as last told in an event")
    asked_uplink = models.PositiveBigIntegerField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="of the request that is open now")
    setup_answer = models.CharField(max_length=100, blank=True, help_text="accepted, or why not")
    received = models.PositiveSmallIntegerField(default=0)
    missing = models.PositiveSmallIntegerField(null=True)
    rounds = models.PositiveSmallIntegerField(default=0, help_text="of repair")
    restarts = models.PositiveSmallIntegerField(default=0)
    frames_sent = models.PositiveIntegerField(default=0)
    report_before = models.BinaryField(null=True, max_length=11)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(stage__in=SessionStage.values), name="session_stage_is_known"),
            models.CheckConstraint(condition=Q(next_number__gte=1), name="session_numbers_from_one"),
        ]

    def __str__(self) -> str:
        return f"session of {self.delivery_id}: {self.stage}"


class CommandExchange(models.Model):
    """How far a command has got."""

    delivery = models.OneToOneField(
        "devices.Delivery", on_delete=models.CASCADE, primary_key=True, related_name="exchange"
    )
    attempts = models.PositiveSmallIntegerField(default=0)
    queue_item_id = models.CharField(max_length=36, blank=True)
    asked_uplink = models.PositiveBigIntegerField(null=True)
    acknowledged_uplink = models.PositiveBigIntegerField(null=True)

    def __str__(self) -> str:
        return f"command {self.delivery_id}"


class NetworkEventKind(models.TextChoices):
    UP = "up", "up"
    JOIN = "join", "join"
    ACK = "ack", "ack"
    TXACK = "txack", "txack"
    LOG = "log", "log"


class NetworkEvent(models.Model):
    """What ChirpStack posted, kept by the web process for a worker. `key` tells a double; rows are dropped later."""

    server = models.ForeignKey(NetworkServer, on_delete=models.CASCADE, related_name="+")
    node = models.ForeignKey("devices.Node", on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=8, choices=NetworkEventKind.choices)
    key = models.CharField(max_length=128)
    at = models.DateTimeField(help_text="when it came here")
    body = models.JSONField()
    processed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], name="network_event_unprocessed", condition=Q(processed_at__isnull=True)),
            models.Index(fields=["processed_at"], name="network_event_by_age"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["server", "key"], name="network_event_once"),
            models.CheckConstraint(condition=Q(kind__in=NetworkEventKind.values), name="network_event_kind_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.node_id}"
