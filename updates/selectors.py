"""Reads of versions, campaigns and node updates. Every list is paged by key; nothing here writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from django.db.models import Case, Count, OuterRef, Prefetch, QuerySet, Subquery, Sum, When
from django.db.models.functions import Coalesce, Substr

from devices.models import Delivery, HardwareProfile, Node
from devices.services import PREFIX_DIGITS
from updates.campaigns import attention
from updates.models import Campaign, Fit, ModelImage, ModelVersion, NodeUpdate, ReconcileRun, Tally, UpdateEvent, Wave
from updates.pipeline.types import HeldClass
from updates.states import OPEN_STATES, CampaignState, NodeUpdateState, VersionState

S = NodeUpdateState
PAGE = 50
LIVE_CAMPAIGNS = [CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.HALTED]
FELL_SHORT = [S.FAILED, S.REJECTED, S.SILENT, S.REVERTED, S.SKIPPED, S.CANCELLED]


def versions(*, before: int | None = None, limit: int = PAGE) -> list[ModelVersion]:
    """Newest first, from below the id `before`."""
    rows = whole_versions().order_by("-id")
    return list((rows.filter(id__lt=before) if before else rows)[:limit])


def whole_versions() -> QuerySet[ModelVersion]:
    """With family, images, and the profiles that get them (`fits`): four queries for any number."""
    chosen = Fit.objects.filter(rank=0, fits=True).select_related("profile").order_by("profile__name")
    images = ModelImage.objects.order_by("id").prefetch_related(Prefetch("fits", chosen))
    return ModelVersion.objects.select_related("family").prefetch_related(Prefetch("images", images))


def builds_under_way() -> list[ModelVersion]:
    """Versions without a verdict, in the order in which they are taken up."""
    waiting = ModelVersion.objects.filter(state__in=[VersionState.UPLOADED, VersionState.BUILDING])
    return list(waiting.select_related("family").order_by("id")[:PAGE])


def builds_ahead(version_id: int) -> int:
    """How many versions are built before this one."""
    return ModelVersion.objects.filter(
        state__in=[VersionState.UPLOADED, VersionState.BUILDING], id__lt=version_id
    ).count()


def usual_build_seconds() -> float | None:
    """Median of what the last 10 builds took that came to a verdict."""
    done = ModelVersion.objects.filter(built_at__isnull=False, build_started_at__isnull=False).order_by("-id")
    times = done.values_list("build_started_at", "built_at")[:10]
    spans = [(built - begun).total_seconds() for begun, built in times if begun and built]
    return median(spans) if spans else None


def ready_versions() -> QuerySet[ModelVersion]:
    return ModelVersion.objects.filter(state=VersionState.READY).select_related("family").order_by("-id")


def version(version_id: int) -> ModelVersion:
    """With family, images, their validation and their fits. Raises ModelVersion.DoesNotExist."""
    images = ModelImage.objects.select_related("validation").prefetch_related(
        Prefetch("fits", Fit.objects.select_related("profile").order_by("profile__name"))
    )
    return (
        ModelVersion.objects.select_related("family")
        .prefetch_related(Prefetch("images", images.order_by("id")))
        .get(pk=version_id)
    )


class NotFound(Exception):
    """`str()` names what there is not."""


def image_and_profile(*, version_id: int, digest: str, profile: str) -> tuple[ModelImage, HardwareProfile]:
    """An image of this version and a profile that it was judged on. What is empty does not choose: then one that does
    not fit comes first. Raises NotFound."""
    chosen = {"image__known": digest, "profile__name": profile}
    fits = Fit.objects.filter(image__version=version_id, **{field: value for field, value in chosen.items() if value})
    fit = fits.select_related("image__version__family", "profile").order_by("fits", "image", "profile__name").first()
    if fit is None:
        raise NotFound(f"Version {version_id} has no image {digest[:12]} judged on a profile {profile}.")
    return fit.image, fit.profile


def images_by_prefix(digests: Iterable[str]) -> dict[str, ModelImage]:
    """The images that these digests (whole, or their first 8 hex digits) stand for, by the first 8 hex digits."""
    prefixes = {one[:8] for one in digests if one}
    images = ModelImage.objects.filter(known__prefix__in=prefixes).select_related("version__family")
    return {image.digest[:8]: image for image in images}


def held_classes(profiles: Sequence[HardwareProfile]) -> dict[tuple[int, int], HeldClass]:
    """By profile and family: the class of the family's image that most nodes of the profile run. Two queries, one of which
    reads each node of the profiles."""
    running = Node.objects.filter(profile__in=profiles).exclude(active_digest="").order_by()
    # Some links report the whole digest, some its beginning.
    prefix = Substr("active_digest", 1, PREFIX_DIGITS)
    counts = list(running.values_list("profile_id", prefix).annotate(nodes=Count("id")))
    images = images_by_prefix(digest for _, digest, _ in counts)
    found: dict[tuple[int, int], HeldClass] = {}
    for profile_id, digest, _ in sorted(counts, key=lambda row: (-row[2], row[1])):
        image = images.get(digest)
        if image is not None and image.runtime == "tflm":
            found.setdefault((profile_id, image.version.family_id), (image.precision, image.granularity))
    return found


def newest_fit(*, family_id: int, profile_id: int) -> Fit | None:
    """How the newest ready version of a family fits a profile."""
    return (
        Fit.objects.filter(profile_id=profile_id, image__version__family_id=family_id)
        .filter(image__version__state=VersionState.READY)
        .select_related("image__version__family")
        .order_by("-image__version_id", "-fits", "rank", "image_id")
        .first()
    )


def campaigns(*, before: int | None = None, limit: int = PAGE, state: str = "", name: str = "") -> list[Campaign]:
    """Newest first, from below the id `before`, with version and family. `name` is a part of it in any case; empty
    values do not filter."""
    rows = Campaign.objects.select_related("version__family", "reverts").order_by("-id")
    if state:
        rows = rows.filter(state=state)
    if name:
        rows = rows.filter(name__icontains=name)
    return list((rows.filter(id__lt=before) if before else rows)[:limit])


def live_campaigns() -> list[Campaign]:
    return list(
        Campaign.objects.filter(state__in=LIVE_CAMPAIGNS).select_related("version__family", "reverts").order_by("-id")
    )


def drafts() -> list[Campaign]:
    return list(
        Campaign.objects.filter(state=CampaignState.DRAFT).select_related("version__family").order_by("-id")[:PAGE]
    )


def campaign(campaign_id: int) -> Campaign:
    """Raises Campaign.DoesNotExist."""
    return Campaign.objects.select_related("version__family", "reverts").get(pk=campaign_id)


def counts_by_campaign(campaign_ids: Sequence[int]) -> dict[int, dict[str, int]]:
    """How many node updates stand in each state, from the tallies."""
    result: dict[int, dict[str, int]] = {campaign_id: {} for campaign_id in campaign_ids}
    rows = Tally.objects.filter(wave__campaign_id__in=campaign_ids).values("wave__campaign_id", "state")
    for row in rows.annotate(total=Sum("count")):
        if row["total"]:
            result[row["wave__campaign_id"]][row["state"]] = row["total"]
    return result


@dataclass(frozen=True)
class Attention:
    campaigns: list[Campaign]
    nodes: list[attention.NodeAttention]


@dataclass(frozen=True)
class WaveCounts:
    wave: Wave
    counts: dict[str, int]

    @property
    def nodes(self) -> int:
        return sum(self.counts.values())


def waves(campaign_id: int) -> list[WaveCounts]:
    rows = Wave.objects.filter(campaign_id=campaign_id).prefetch_related("tallies").order_by("index")
    return [WaveCounts(wave, {one.state: one.count for one in wave.tallies.all() if one.count}) for wave in rows]


def failure_causes(campaign_id: int) -> list[dict[str, Any]]:
    """State, cause and count of the node updates that fell short, most frequent first."""
    rows = NodeUpdate.objects.filter(campaign_id=campaign_id, state__in=FELL_SHORT).values("state", "cause")
    return [dict(row) for row in rows.annotate(nodes=Count("id")).order_by("-nodes", "state", "cause")]


def received_bytes(campaign_id: int) -> dict[str, int]:
    """Bytes that nodes received and bytes they are to receive. Reads each node update: 10,000 rows take about 10 ms."""
    sums = NodeUpdate.objects.filter(campaign_id=campaign_id).aggregate(
        received=Sum("received_bytes", default=0), total=Sum("total_bytes", default=0)
    )
    return {"received": sums["received"], "total": sums["total"]}


def updates_to_show(node_ids: Sequence[int]) -> dict[int, NodeUpdate]:
    """The open node update of each node, else its newest; with what it brings and its campaign. Three queries.

    Many nodes share few campaigns and images: joined to each row, they would be decoded once a node.
    """
    updates = {update.node_id: update for update in _updates_to_show(node_ids)}
    images = ModelImage.objects.select_related("version__family").defer("facts")
    campaigns = Campaign.objects.select_related("version__family", "reverts").defer("plan", "reverts__plan")
    image_of = images.in_bulk({update.image_id for update in updates.values() if update.image_id})
    campaign_of = campaigns.in_bulk({update.campaign_id for update in updates.values()})
    for update in updates.values():
        update.campaign = campaign_of[update.campaign_id]
        update.image = image_of[update.image_id] if update.image_id else None
    return updates


def update_to_show(node_id: int) -> NodeUpdate | None:
    """As `updates_to_show`, with its wave, in one query."""
    rows = _updates_to_show([node_id])
    return rows.select_related(
        "campaign__version__family", "campaign__reverts", "wave", "image__version__family"
    ).first()


def _updates_to_show(node_ids: Sequence[int]) -> QuerySet[NodeUpdate]:
    closed = Case(When(state__in=OPEN_STATES, then=0), default=1)
    rows = NodeUpdate.objects.filter(node_id__in=node_ids)
    return rows.order_by("node_id", closed, "-id").distinct("node_id")


def events_of_node(node_id: int, *, before: int | None = None, limit: int = PAGE) -> list[UpdateEvent]:
    """Newest first, from below the id `before`."""
    rows = UpdateEvent.objects.filter(node_id=node_id).select_related("campaign").order_by("-id")
    return list((rows.filter(id__lt=before) if before is not None else rows)[:limit])


def events_of_update(update: NodeUpdate) -> list[UpdateEvent]:
    """Newest first."""
    rows = UpdateEvent.objects.filter(node_id=update.node_id, node_update_id=update.pk)
    return list(rows.order_by("-id")[:PAGE])


def events_of_campaign(campaign_id: int, *, limit: int = 12) -> list[UpdateEvent]:
    """Newest first, with the node."""
    return list(UpdateEvent.objects.filter(campaign_id=campaign_id).select_related("node").order_by("-id")[:limit])


def node_updates(*, campaign_id: int, state: str | None, after: int, limit: int) -> list[NodeUpdate]:
    """A page of a campaign's node updates, each with `bytes_sent`: payload bytes that left for it, repeats included."""
    deliveries = Delivery.objects.filter(reference=OuterRef("pk")).order_by().values("reference")
    sent = deliveries.annotate(total=Sum("bytes_sent")).values("total")
    rows = NodeUpdate.objects.filter(campaign_id=campaign_id, pk__gt=after).select_related("node", "wave")
    if state:
        rows = rows.filter(state=state)
    return list(rows.annotate(bytes_sent=Coalesce(Subquery(sent), 0)).order_by("id")[:limit])


def needs_attention(*, now: datetime, before: int | None = None, limit: int = PAGE) -> Attention:
    """Everything that a person should look at: campaigns that stand still, and a page of nodes, see `attention`."""
    nodes = attention.nodes_needing_attention(now=now, before=before, limit=limit)
    return Attention(attention.stopped_campaigns() if before is None else [], nodes)


def last_reconcile() -> ReconcileRun | None:
    """The newest proof that the books are right; None before the first."""
    return ReconcileRun.objects.order_by("-pk").first()
