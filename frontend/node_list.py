"""What the list of nodes shows, in which order, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from devices.models import Node, NodePresence
from devices.paging import SORTS, Cursor, page_of_nodes
from frontend.selectors import silent
from updates import selectors as updates
from updates.models import ModelImage, NodeUpdate
from updates.node_filter import nodes_matching
from updates.states import OPEN_STATES, NodeUpdateState

PAGE = 50
# One-to-one rows that the list shows besides the node itself.
BESIDE = ("profile", "presence", "radio")


@dataclass(frozen=True)
class NodeFilter:
    """What the nodes page filters by; empty values do not filter. `text` is in the filter language."""

    text: str = ""
    campaign: int | None = None
    state: str = ""
    silent: bool = False


@dataclass(frozen=True)
class NodeRow:
    """`target` is what an open or planned update brings."""

    node: Node
    installed: ModelImage | None
    update: NodeUpdate | None
    now: datetime

    @property
    def presence(self) -> NodePresence | None:
        return getattr(self.node, "presence", None)

    @property
    def target(self) -> str:
        if self.update is None or self.update.state not in [NodeUpdateState.PLANNED, *OPEN_STATES]:
            return ""
        if self.update.image:
            return str(self.update.image.version)
        return str(self.update.campaign.version or f"what it ran before {self.update.campaign.reverts}")

    @property
    def quality(self) -> str:
        """How well its link heard it last."""
        radio = radio_of(self.node)
        if radio is None:
            return "quality not reported"
        heard = (("", radio.rssi_dbm, "dBm"), ("SNR ", radio.snr_db, "dB"))
        return ", ".join(
            [f"DR{radio.data_rate}", *(f"{name}{value:g} {unit}" for name, value, unit in heard if value is not None)]
        )

    @property
    def expected_at(self) -> datetime | None:
        """When its next report is due by its own rhythm."""
        if self.presence is None or not self.presence.report_interval_s:
            return None
        return self.presence.last_seen_at + timedelta(seconds=self.presence.report_interval_s)

    @property
    def is_due(self) -> bool:
        return self.expected_at is not None and self.expected_at < self.now


def radio_of(node: Node) -> Any:
    """The newest figures of its radio (data_rate, rssi_dbm, snr_db, gateway_id, region, at), where its link has any."""
    return getattr(node, "radio", None)


def filtered_nodes(wanted: NodeFilter, *, now: datetime) -> QuerySet[Node]:
    """Raises devices.query.QueryError."""
    rows = nodes_matching(wanted.text, now=now)
    if wanted.campaign or wanted.state:
        chosen = NodeUpdate.objects.filter(node=OuterRef("pk"))
        if wanted.campaign:
            chosen = chosen.filter(campaign_id=wanted.campaign)
        if wanted.state:
            chosen = chosen.filter(state=wanted.state)
        rows = rows.filter(Exists(chosen))
    if wanted.silent:
        rows = rows.filter(Exists(silent(now=now).filter(node=OuterRef("pk"))))
    return rows


def node_rows(
    wanted: NodeFilter,
    *,
    now: datetime,
    sort: str = "",
    cursor: Cursor | None = None,
    limit: int = PAGE,
    thorough: bool = True,
) -> list[NodeRow]:
    """At most `limit` from the cursor on, as `page_of_nodes` finds them, in a bounded number of queries. Raises QueryError
    and, unless it is to be `thorough`, TakesTheWholeFleet."""
    ids = page_of_nodes(filtered_nodes(wanted, now=now), sort=sort, cursor=cursor, limit=limit, thorough=thorough)
    found = Node.objects.select_related(*BESIDE).in_bulk(ids)
    # One that was deleted since is left out.
    nodes = [found[pk] for pk in ids if pk in found]
    images = updates.images_by_prefix(node.active_digest for node in nodes)
    newest = updates.updates_to_show([node.pk for node in nodes])
    return [NodeRow(node, images.get(node.active_digest[:8]), newest.get(node.pk), now) for node in nodes]


def cursor_after(row: NodeRow, sort: str) -> dict[str, str]:
    """Query parameters of the page that follows this row; `read_cursor` takes them."""
    parameters = {"after": str(row.node.pk)}
    if sort:
        value: Any = row.node
        for name in SORTS[sort.removeprefix("-")].path.split("__"):
            value = getattr(value, name, None)
        if value is not None:
            parameters["at"] = str(value)
    return parameters


def read_cursor(after: int, at: str | None, sort: str) -> Cursor:
    """Raises ValueError where `at` is no value of the sorted column."""
    return Cursor(after, SORTS[sort.removeprefix("-")].read(at) if sort and at is not None else None)
