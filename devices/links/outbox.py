"""Deliveries as rows, the same for every link: what is queued here, the process that owns the radio picks up."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import transaction

from devices.links.base import FULL_BUNDLE, Recipient
from devices.models import OPEN_DELIVERY, Delivery, DeliveryState, LinkKind, OfferedBundle, Offering
from fleet.blobs.models import store

COMMAND_BYTES_MAX = 64
_DIGEST = re.compile("[0-9a-f]{64}")
_TOKEN_BYTES = 16


def offer(*, link: LinkKind, bundles: Mapping[str, bytes], nodes: Sequence[Recipient], now: datetime) -> None:
    """See `Link.offer`. Four queries, and three a bundle."""
    if not bundles:
        raise ValueError('bundles: empty, give at least one base digest or "*"')
    for base, data in bundles.items():
        if base != FULL_BUNDLE and not _DIGEST.fullmatch(base):
            raise ValueError(f'bundles: base {base!r}, must be 64 lower-case hex digits or "*"')
        if not data:
            raise ValueError(f"bundles: the bundle of base {base!r} is empty")
    recipients = _without_open_delivery(nodes)
    if not recipients:
        return
    offering = Offering.objects.create()
    OfferedBundle.objects.bulk_create(
        OfferedBundle(offering=offering, base_digest="" if base == FULL_BUNDLE else base, blob=store(data))
        for base, data in bundles.items()
    )
    _queue(link, recipients, now, offering=offering)


def command(*, link: LinkKind, command: bytes, nodes: Sequence[Recipient], now: datetime) -> None:
    """See `Link.command`. Two queries."""
    if not 1 <= len(command) <= COMMAND_BYTES_MAX:
        raise ValueError(f"command: {len(command)} bytes, must be 1..{COMMAND_BYTES_MAX}")
    _queue(link, _without_open_delivery(nodes), now, command=command)


@transaction.atomic
def cancel(*, link: LinkKind, references: Sequence[int], now: datetime) -> int:
    """See `Link.cancel`. One statement; rows are locked in key order, as every other writer of deliveries does."""
    locked = (
        Delivery.objects.filter(link=link, reference__in=references, state__in=OPEN_DELIVERY)
        .order_by("pk")
        .select_for_update(of=("self",))
        .values("pk")
    )
    with transaction.atomic():
        return Delivery.objects.filter(pk__in=locked, state__in=OPEN_DELIVERY).update(
            state=DeliveryState.CANCELLED, updated_at=now
        )


def _without_open_delivery(nodes: Sequence[Recipient]) -> list[Recipient]:
    wanted = {recipient.reference: recipient for recipient in nodes}
    open_now = Delivery.objects.filter(reference__in=wanted, state__in=OPEN_DELIVERY).values_list(
        "reference", flat=True
    )
    for reference in open_now:
        del wanted[reference]
    return list(wanted.values())


def _queue(
    link: LinkKind,
    nodes: Sequence[Recipient],
    now: datetime,
    *,
    offering: Offering | None = None,
    command: bytes | None = None,
) -> None:
    # Conflicts are ignored for the caller that offers the same reference at the same moment: the first one stays.
    Delivery.objects.bulk_create(
        (
            Delivery(
                node_id=recipient.node_id,
                link=link,
                reference=recipient.reference,
                offering=offering,
                command=command,
                token=secrets.token_urlsafe(_TOKEN_BYTES),
                created_at=now,
                updated_at=now,
            )
            for recipient in nodes
        ),
        batch_size=1000,
        ignore_conflicts=True,
    )
