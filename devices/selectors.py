"""Reads of the fleet register."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection
from django.db.models import Count, Exists, OuterRef, QuerySet

from devices.models import (
    OPEN_DELIVERY,
    Delivery,
    FirmwareBuild,
    HardwareProfile,
    LinkEvent,
    LinkEventKind,
    LinkKind,
    Node,
    OfferedBundle,
    UnknownEndpoint,
)


def node_by_endpoint(*, link: LinkKind, endpoint: str) -> Node | None:
    return Node.objects.filter(link=link, endpoint=endpoint).first()


def unknown_endpoints() -> QuerySet[UnknownEndpoint]:
    """Who spoke and is not registered, newest first. One that was registered while it spoke may have left its row."""
    registered = Node.objects.filter(endpoint=OuterRef("endpoint"), link=OuterRef("link"))
    return UnknownEndpoint.objects.exclude(Exists(registered)).order_by("-last_seen_at", "-pk")


def profiles_with_nodes(*, after: str, limit: int) -> QuerySet[HardwareProfile]:
    """By name, with `node_count`."""
    return HardwareProfile.objects.filter(name__gt=after).annotate(node_count=Count("nodes"))[:limit]


def firmware_builds_with_nodes(*, after: str, limit: int) -> QuerySet[FirmwareBuild]:
    """By name, with `node_count`."""
    return FirmwareBuild.objects.filter(name__gt=after).annotate(node_count=Count("nodes"))[:limit]


def open_deliveries(*, link: LinkKind, nodes: Sequence[int]) -> QuerySet[Delivery]:
    """What these nodes (ids) still have to get, oldest first; with the node and the bundle that was picked."""
    return (
        Delivery.objects.filter(link=link, node_id__in=nodes, state__in=OPEN_DELIVERY)
        .select_related("node", "bundle")
        .order_by("node_id", "pk")
    )


def delivery_by_token(*, link: LinkKind, token: str) -> Delivery | None:
    """The delivery that may be pulled with this token; None once it is closed or where nothing was picked yet."""
    return (
        Delivery.objects.filter(link=link, token=token, state__in=OPEN_DELIVERY, bundle__isnull=False)
        .select_related("bundle")
        .first()
    )


def open_bundles(*, deliveries: Sequence[int]) -> dict[int, int | None]:
    """The open ones of these deliveries (ids), with the bundle (id) that was picked for each."""
    return dict(Delivery.objects.filter(pk__in=deliveries, state__in=OPEN_DELIVERY).values_list("pk", "bundle_id"))


def may_switch(*, delivery_id: int) -> bool:
    """Whether the node may be told to switch to what it has pulled: the delivery is open, and nobody holds it back."""
    return Delivery.objects.filter(pk=delivery_id, state__in=OPEN_DELIVERY, held=False).exists()


def bundle_for_base(*, offering_id: int, base_digest: str) -> OfferedBundle | None:
    """The bundle for exactly this base, else the full image, else None."""
    bundles = OfferedBundle.objects.filter(offering_id=offering_id, base_digest__in=[base_digest, ""])
    return bundles.order_by("-base_digest").first()


def base_last_offered_to(*, node_id: int, delivery_id: int) -> str | None:
    """The base that the node said it runs when this delivery was last offered to it; None before that."""
    return (
        LinkEvent.objects.filter(node_id=node_id, delivery_id=delivery_id, kind=LinkEventKind.OFFERED)
        .order_by("-id")
        .values_list("digest", flat=True)
        .first()
    )


def time_zones() -> list[str]:
    """Every time zone that a node has ("" where none is given). Hops along the index: a few reads for any number of nodes."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH RECURSIVE zone(name) AS (
                (SELECT time_zone FROM devices_node ORDER BY time_zone LIMIT 1)
                UNION ALL
                SELECT (SELECT n.time_zone FROM devices_node n WHERE n.time_zone > z.name ORDER BY n.time_zone LIMIT 1)
                FROM zone z WHERE z.name IS NOT NULL
            )
            SELECT name FROM zone WHERE name IS NOT NULL
            """
        )
        return [row[0] for row in cursor.fetchall()]
