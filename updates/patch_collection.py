"""Patches that nobody needs any more: marked, kept for a while, then deleted with their bytes.

A patch is needed while a node reports to run its base (a node is asked by the base that it runs), or while a campaign that
has not ended asked for it or has its version at either end. A plan that asks for one takes its mark away.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from fleet.audit.models import record_many
from fleet.blobs.models import forget_unused
from updates.campaigns.rollback import LIVE
from updates.models import Patch

COLLECTOR = "patch collection"
CHUNK = 500

# Nodes report whole digests or the first 8 digits.
_NEEDED = """(
EXISTS (SELECT 1 FROM devices_node n
        WHERE n.active_digest IN (b.digest, left(b.digest, 8)))
OR EXISTS (SELECT 1 FROM updates_campaign c
           WHERE c.state = ANY(%(live)s)
           AND (c.version_id IN (b.version_id, t.version_id) OR c.plan->'patches' @> to_jsonb(p.id)))
)"""
_PAIRED = (
    "FROM updates_patch p JOIN updates_modelimage b ON b.id = p.base_id JOIN updates_modelimage t ON t.id = p.target_id"
    " WHERE u.id = p.id"
)
_MARK = " ".join(
    ["UPDATE updates_patch u SET unneeded_since = %(now)s", _PAIRED, "AND u.unneeded_since IS NULL AND NOT", _NEEDED]
)
_UNMARK = " ".join(
    ["UPDATE updates_patch u SET unneeded_since = NULL", _PAIRED, "AND u.unneeded_since IS NOT NULL AND", _NEEDED]
)


def collect(*, now: datetime) -> int:
    """Marks what is not needed, unmarks what is again, deletes what has been marked for settings.PATCH_RETENTION_DAYS; how
    many were deleted. Any call may be lost, doubled or killed."""
    values: dict[str, Any] = {"now": now, "live": [str(state) for state in LIVE]}
    with connection.cursor() as cursor:
        cursor.execute(_MARK, values)
        cursor.execute(_UNMARK, values)
    deleted = 0
    while number := _delete(now - timedelta(days=settings.PATCH_RETENTION_DAYS)):
        deleted += number
    return deleted


@transaction.atomic
def _delete(before: datetime) -> int:
    """A chunk of what has been marked since before then. A plan that asks for one meanwhile waits and makes it anew."""
    marked = Patch.objects.select_for_update(skip_locked=True, of=("self",)).filter(unneeded_since__lte=before)
    patches = list(marked.select_related("base__version__family", "target__version__family").order_by("pk")[:CHUNK])
    record_many(
        actor=COLLECTOR,
        action="patch.collected",
        changes=[
            (
                patch,
                {
                    "base": patch.base.digest,
                    "target": patch.target.digest,
                    "decoder": patch.decoder,
                    "state": str(patch.state),
                    "blob": patch.blob_id,
                },
                None,
            )
            for patch in patches
        ],
    )
    Patch.objects.filter(pk__in=[patch.pk for patch in patches]).delete()
    forget_unused(patch.blob_id for patch in patches if patch.blob_id is not None)
    return len(patches)
