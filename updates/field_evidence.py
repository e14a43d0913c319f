"""What nodes say of the images that they run, gathered from their health reports for each image and profile.

Verdicts go by it: an arena that a node reports joins the evidence for the arena, a measured p99 takes the place of the
estimate, a missed deadline refuses. One statement each ten minutes reads the newest report of each node.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from django.db import connection, transaction

from devices.models import HardwareProfile
from updates.fits import fit_images, lock_fits
from updates.models import ModelImage

# No node can use more arena than it has SRAM: such a figure says nothing. Zeros were not measured.
_GATHER = """
WITH said AS (
    SELECT n.profile_id, c.active_prefix AS prefix, coalesce(c.inferences, 0) AS inferences,
        coalesce(c.deadline_misses, 0) AS misses, nullif(c.p99_latency_us, 0) AS p99,
        CASE WHEN c.arena_used_bytes BETWEEN 1 AND coalesce(n.sram_bytes, p.sram_bytes) THEN c.arena_used_bytes END AS arena
    FROM devices_nodehealth h JOIN devices_node n ON n.id = h.node_id
    JOIN devices_hardwareprofile p ON p.id = n.profile_id
    CROSS JOIN LATERAL jsonb_to_record(h.counters) AS c (active_prefix text, inferences bigint, deadline_misses bigint,
        p99_latency_us bigint, arena_used_bytes bigint)
)
INSERT INTO updates_fieldevidence AS kept (image_id, profile_id, nodes, arena_bytes, arena_nodes, p99_us, p99_nodes,
    inferences, deadline_misses, missing_nodes, changed_at)
SELECT i.id, s.profile_id, count(*), max(s.arena), count(s.arena), max(s.p99), count(s.p99), sum(s.inferences),
    sum(s.misses), count(*) FILTER (WHERE s.misses > 0), %s
FROM said s JOIN devices_knownimage k ON k.prefix = s.prefix JOIN updates_modelimage i ON i.digest = k.digest
GROUP BY i.id, s.profile_id
ON CONFLICT (image_id, profile_id) DO UPDATE SET nodes = excluded.nodes, arena_bytes = excluded.arena_bytes,
    arena_nodes = excluded.arena_nodes, p99_us = excluded.p99_us, p99_nodes = excluded.p99_nodes,
    inferences = excluded.inferences, deadline_misses = excluded.deadline_misses,
    missing_nodes = excluded.missing_nodes, changed_at = excluded.changed_at
WHERE (kept.nodes, kept.arena_bytes, kept.p99_us, kept.inferences, kept.deadline_misses)
    IS DISTINCT FROM (excluded.nodes, excluded.arena_bytes, excluded.p99_us, excluded.inferences, excluded.deadline_misses)
RETURNING kept.image_id, kept.profile_id
"""


@transaction.atomic
def gather(*, now: datetime) -> int:
    """Images and profiles of which nodes say something else by now; their versions are fitted anew to those profiles."""
    lock_fits()
    with connection.cursor() as cursor:
        cursor.execute(_GATHER, [now])
        changed = cursor.fetchall()
    images: defaultdict[int, set[int]] = defaultdict(set)
    for image_id, profile_id in changed:
        images[profile_id].add(image_id)
    for profile_id, image_ids in sorted(images.items()):
        versions = ModelImage.objects.filter(pk__in=image_ids).values("version_id")
        fit_images(ModelImage.objects.filter(version__in=versions), HardwareProfile.objects.filter(pk=profile_id))
    return len(changed)
