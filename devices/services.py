"""Use cases of the fleet register: nodes, known images, and what links and reports say of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db import IntegrityError, connection, transaction

from devices.models import (
    OPEN_DELIVERY,
    Delivery,
    FirmwareBuild,
    HardwareProfile,
    KnownImage,
    LinkEvent,
    LinkKind,
    Node,
    UnknownEndpoint,
)

PREFIX_DIGITS = 8
# Whoever sprays endpoint names at a link must not fill the table.
UNKNOWN_ENDPOINTS_MAX = 1000


class PrefixClash(ValueError):
    """Two images whose digests begin alike could not be told apart in an 11-byte report."""


def register_node(
    *,
    endpoint: str,
    link: LinkKind,
    profile: HardwareProfile,
    firmware_build: FirmwareBuild | None = None,
    site: str = "",
    labels: Mapping[str, str] | None = None,
    time_zone: str = "",
    slot_bytes: int | None = None,
    sram_bytes: int | None = None,
    reserved_sram_bytes: int | None = None,
) -> Node:
    """A new node; it stops being an unknown endpoint. Raises django.core.exceptions.ValidationError."""
    node = Node(
        endpoint=endpoint,
        link=link,
        profile=profile,
        firmware_build=firmware_build,
        site=site,
        labels=dict(labels or {}),
        time_zone=time_zone,
        slot_bytes=slot_bytes,
        sram_bytes=sram_bytes,
        reserved_sram_bytes=reserved_sram_bytes,
    )
    node.full_clean()
    with transaction.atomic():
        node.save()
        UnknownEndpoint.objects.filter(link=link, endpoint=node.endpoint).delete()
    return node


def register_image(digest: str) -> KnownImage:
    """Makes a digest (64 hex digits) recognisable by its prefix in reports; again is harmless. Raises PrefixClash."""
    image = KnownImage(digest=digest, prefix=digest[:PREFIX_DIGITS])
    try:
        with transaction.atomic():
            known, _ = KnownImage.objects.get_or_create(digest=image.digest, defaults={"prefix": image.prefix})
    except IntegrityError as error:
        if other := KnownImage.objects.filter(prefix=image.prefix).first():
            raise PrefixClash(
                f"digest: {digest} begins like {other.digest}, and reports carry only {PREFIX_DIGITS} digits; "
                "change the model by a byte (its description, say) and upload again"
            ) from error
        raise
    return known


@dataclass(frozen=True)
class Holding:
    """What a node says its slots hold. None: it did not say; empty: the slot holds nothing.

    Digests have 64 hex digits, or 8 where an 11-byte report left no room for more.
    """

    node_id: int
    active_digest: str | None = None
    standby_digest: str | None = None
    sequence_low_byte: int | None = None


def sequence_from_low_byte(*, known: int, low_byte: int) -> int:
    """The sequence nearest to the last known one that ends in this byte (0..255): reports may be late."""
    nearby = ((known & ~0xFF) + low_byte + turn for turn in (-256, 0, 256))
    return min((sequence for sequence in nearby if sequence >= 0), key=lambda sequence: abs(sequence - known))


# Beside bulk_update, which writes a CASE with a branch a row, this takes a tenth of the time.
_HOLDINGS = """
UPDATE devices_node n SET active_digest = h.active, standby_digest = h.standby, sequence = h.sequence
FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) AS h (id, active, standby, sequence) WHERE n.id = h.id
"""


def record_holdings(*, holdings: Sequence[Holding]) -> int:
    """Takes over what nodes say; the last holding of a node wins. Returns how many rows changed.

    Three queries for any number of nodes. A prefix becomes the whole digest of the known image, and stays a
    prefix where no image is known. Rows are locked in key order.
    """
    said: dict[int, dict[str, str | int]] = {}
    for holding in holdings:
        fields = said.setdefault(holding.node_id, {})
        if holding.active_digest is not None:
            fields["active_digest"] = holding.active_digest
        if holding.standby_digest is not None:
            fields["standby_digest"] = holding.standby_digest
        if holding.sequence_low_byte is not None:
            fields["sequence_low_byte"] = holding.sequence_low_byte
    prefixes = {value for fields in said.values() for value in fields.values() if _is_prefix(value)}
    whole = dict(KnownImage.objects.filter(prefix__in=prefixes).values_list("prefix", "digest")) if prefixes else {}
    changed = []
    with transaction.atomic():
        nodes = Node.objects.filter(pk__in=said).order_by("pk").select_for_update(of=("self",), no_key=True)
        for pk, active, standby, sequence in nodes.values_list("pk", "active_digest", "standby_digest", "sequence"):
            fields, before = said[pk], (active, standby, sequence)
            after = (
                _resolved(fields.get("active_digest"), active, whole),
                _resolved(fields.get("standby_digest"), standby, whole),
                sequence_from_low_byte(known=sequence, low_byte=int(fields["sequence_low_byte"]))
                if "sequence_low_byte" in fields
                else sequence,
            )
            if before != after:
                changed.append((pk, *after))
        if changed:
            with connection.cursor() as cursor:
                cursor.execute(_HOLDINGS, [list(column) for column in zip(*changed, strict=True)])
    return len(changed)


def _is_prefix(value: object) -> bool:
    return isinstance(value, str) and len(value) == PREFIX_DIGITS


def _resolved(said: str | int | None, known: str, whole: Mapping[str, str]) -> str:
    if said is None:
        return known
    digest = str(said)
    if not _is_prefix(digest):
        return digest
    # A whole digest that begins like this says more than the prefix.
    return whole.get(digest) or (known if known.startswith(digest) else digest)


@dataclass(frozen=True)
class Sighting:
    """A sign of life. `awake_until` None: the link does not know (LoRaWAN)."""

    node_id: int
    seen_at: datetime
    awake_until: datetime | None = None
    address: str = ""


def record_presence(*, sightings: Sequence[Sighting]) -> None:
    """One statement for any number of nodes; the latest sighting of a node counts, nodes that are gone are passed over.

    Says nothing new where a later one is known, so that who drains events may tell again what their link told already.

    The smoothed interval (0.8 old, 0.2 new) counts only signs of life that open a new window: those inside an
    open one say nothing of a node's rhythm.
    """
    latest = {sighting.node_id: sighting for sighting in sorted(sightings, key=lambda sighting: sighting.seen_at)}
    rows = [latest[node_id] for node_id in sorted(latest)]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO devices_nodepresence AS p (node_id, last_seen_at, awake_until, address)
            SELECT s.node_id, s.seen_at, s.awake_until, s.address
            FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::text[])
                 AS s (node_id, seen_at, awake_until, address)
            JOIN devices_node n ON n.id = s.node_id
            ORDER BY s.node_id
            ON CONFLICT (node_id) DO UPDATE SET
                last_seen_at = GREATEST(p.last_seen_at, excluded.last_seen_at),
                awake_until = COALESCE(excluded.awake_until, p.awake_until),
                address = COALESCE(NULLIF(excluded.address, ''), p.address),
                report_interval_s = CASE
                    WHEN p.awake_until >= excluded.last_seen_at OR p.last_seen_at >= excluded.last_seen_at
                    THEN p.report_interval_s
                    ELSE COALESCE(0.8 * p.report_interval_s, 0)
                         + CASE WHEN p.report_interval_s IS NULL THEN 1 ELSE 0.2 END
                           * EXTRACT(EPOCH FROM excluded.last_seen_at - p.last_seen_at)
                END
            WHERE p.last_seen_at < excluded.last_seen_at OR excluded.awake_until IS NOT NULL
            """,
            [
                [row.node_id for row in rows],
                [row.seen_at for row in rows],
                [row.awake_until for row in rows],
                [row.address[:64] for row in rows],
            ],
        )


def record_unknown_endpoint(*, link: LinkKind, endpoint: str, address: str, now: datetime, missing: str = "") -> None:
    """Keeps who spoke without being registered: one row an endpoint, at most 1000 a link."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO devices_unknownendpoint AS u
                (link, endpoint, address, missing, attempts, first_seen_at, last_seen_at)
            SELECT %(link)s, %(endpoint)s, %(address)s, %(missing)s, 1, %(now)s, %(now)s
            WHERE EXISTS (SELECT 1 FROM devices_unknownendpoint WHERE link = %(link)s AND endpoint = %(endpoint)s)
               OR (SELECT count(*) FROM devices_unknownendpoint WHERE link = %(link)s) < %(most)s
            ON CONFLICT (link, endpoint) DO UPDATE SET
                attempts = u.attempts + 1, address = excluded.address, missing = excluded.missing,
                last_seen_at = excluded.last_seen_at
            """,
            {
                "link": link,
                "endpoint": endpoint[:64],
                "address": address[:64],
                "missing": missing[:200],
                "now": now,
                "most": UNKNOWN_ENDPOINTS_MAX,
            },
        )


def hold_deliveries(*, deliveries: Sequence[int], held: bool) -> int:
    """Keeps nodes from switching to what they have pulled, or lets them; how many changed. Locked in key order.

    For links that tell a node when to switch: NB-IoT.
    """
    locked = Delivery.objects.filter(pk__in=deliveries, state__in=OPEN_DELIVERY).order_by("pk").select_for_update()
    with transaction.atomic():
        return Delivery.objects.filter(pk__in=locked.values("pk")).update(held=held)


class Heard(NamedTuple):
    """One LinkEvent as a worker reads it."""

    id: int
    at: datetime
    link: str
    kind: str
    node_id: int
    reference: int | None
    received_bytes: int | None
    total_bytes: int | None
    cause: str
    payload: bytes | None
    digest: str


# Nodes fall into shards by id; a worker drains a few shards alone, so that the events of a node are worked off in order
# however many workers there are.
SHARDS, SHARDS_AT_ONCE = 16, 4
# First half of the two-part advisory key.
_SHARD_SPACE = 0x6D68
_SHARDS = "SELECT s FROM unnest(%s::int[]) AS s WHERE pg_try_advisory_xact_lock(%s, s) LIMIT %s"
_LEASE = f"""
WITH due AS MATERIALIZED (
    SELECT id, at FROM devices_linkevent WHERE drained_at IS NULL AND node_id %% {SHARDS} = ANY(%s)
    ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE devices_linkevent e SET drained_at = %s FROM due WHERE e.id = due.id AND e.at = due.at
RETURNING {", ".join(f"e.{name}" for name in Heard._fields)}
"""  # noqa: S608 - our own text


def take_events(*, now: datetime, limit: int) -> list[Heard]:
    """Marks up to `limit` events as drained and returns them in order, those of one node never to two workers at once.

    Call within the transaction that acts on them: undone with it, they are there to be drained again. Empty where nothing
    is left that no other worker is at.
    """
    oldest = LinkEvent.objects.filter(drained_at=None).order_by("id").values_list("node_id", flat=True).first()
    if oldest is None:
        return []
    order = [(oldest + step) % SHARDS for step in range(SHARDS)]
    with connection.cursor() as cursor:
        cursor.execute(_SHARDS, [order, _SHARD_SPACE, SHARDS_AT_ONCE])
        shards = [row[0] for row in cursor.fetchall()]
        cursor.execute(_LEASE, [shards, limit, now])
        return sorted(Heard(*row) for row in cursor.fetchall())


def append_events(events: Sequence[LinkEvent]) -> None:
    """In this order; one statement a thousand."""
    LinkEvent.objects.bulk_create(events, batch_size=1000)


def add_bytes_sent(*, counts: Mapping[int, int]) -> None:
    """Adds to the bytes that left for each delivery; one statement, rows locked in key order."""
    ids = sorted(counts)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH sent AS (SELECT * FROM unnest(%s::bigint[], %s::bigint[]) AS s (id, bytes)),
                 locked AS (
                     SELECT d.id FROM devices_delivery d JOIN sent USING (id) ORDER BY d.id FOR NO KEY UPDATE OF d
                 )
            UPDATE devices_delivery d SET bytes_sent = d.bytes_sent + sent.bytes
            FROM sent JOIN locked USING (id) WHERE d.id = sent.id
            """,
            [ids, [counts[key] for key in ids]],
        )
