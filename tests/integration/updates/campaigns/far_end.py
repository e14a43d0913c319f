"""What stands at the other end of the engine: a gateway that works deliveries off, and nodes with two slots each.

Nodes are values in memory, so that what is known of them can be held against what they truly are. What they and their
gateway say goes into `air` first: a test decides which message arrives, when, and how often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from django.db import transaction

from devices.models import OPEN_DELIVERY, Delivery, DeliveryState, LinkEvent, LinkEventKind
from devices.wire import Cause, NodeState, StateReport
from updates.models import NodeUpdate

PASSING, FINAL = Cause.FLASH_FAILURE, Cause.WRONG_CLASS


@dataclass
class TrueNode:
    """`said` is what it repeats in each report; `sequence` the highest it has accepted."""

    pk: int
    active: str
    standby: str = ""
    sequence: int = 0
    said: StateReport | None = None
    # Whole packages that it took, by node update, and attempts that it reported as failed, by node update.
    taken: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)
    staged: tuple[int, int, str] | None = None  # node update, sequence, target

    def report(self, state: NodeState, sequence: int, cause: Cause = Cause.NONE) -> StateReport:
        self.said = StateReport(
            state=state,
            cause=cause,
            active_prefix=bytes.fromhex(self.active)[:4],
            standby_prefix=bytes.fromhex(self.standby)[:4] or bytes(4),
            sequence_low=sequence & 0xFF,
        )
        return self.said


class FarEnd:
    def __init__(self, holdings: Mapping[int, str]) -> None:
        self.nodes = {pk: TrueNode(pk, active) for pk, active in holdings.items()}
        self.air: list[dict[str, Any]] = []

    # What a node may do next

    def begin(self, pk: int, *, now: datetime) -> bool:
        """It wakes and pulls half of its oldest open bundle."""
        return self._work_off(pk, [DeliveryState.WAITING, DeliveryState.OFFERED], DeliveryState.TRANSFERRING, now)

    def complete(self, pk: int, *, now: datetime) -> bool:
        """It pulls the rest and stages it; a command it obeys at once, where it can."""
        return self._work_off(pk, OPEN_DELIVERY, DeliveryState.DELIVERED, now)

    def lose_transfer(self, pk: int, *, now: datetime) -> bool:
        """The link gives up on the transfer, for a cause that may pass."""
        return self._work_off(pk, OPEN_DELIVERY, DeliveryState.FAILED, now)

    def succeed(self, pk: int) -> bool:
        """It runs what it has staged, and proves it by the whole digest."""
        node = self.nodes[pk]
        if node.staged is None:
            return False
        _, sequence, target = node.staged
        node.active, node.standby, node.staged = target, node.active, None
        node.report(NodeState.CONFIRMED, sequence)
        self.speak(pk)
        return True

    def try_out(self, pk: int) -> bool:
        node = self.nodes[pk]
        if node.staged is None:
            return False
        node.report(NodeState.TRIAL, node.staged[1])
        self.speak(pk)
        return True

    def fail(self, pk: int, state: NodeState, cause: Cause) -> bool:
        """It keeps what it had, and says so. Only a revert has used the sequence up."""
        node = self.nodes[pk]
        if node.staged is None:
            return False
        update, sequence, _ = node.staged
        node.staged = None
        node.failed[update] += 1
        node.report(state, sequence, cause)
        self.speak(pk)
        return True

    def speak(self, pk: int) -> None:
        """Its newest report, with the digest that its link reads before one of success."""
        node = self.nodes[pk]
        if node.said is None:
            self._say(pk, LinkEventKind.HOLDS, digest=node.active)
        else:
            # One message, for a link keeps the two together: success is judged by what it has just read.
            self._say(pk, LinkEventKind.REPORT, payload=node.said.encode(), holds=node.active)

    # What arrives

    def arrive(self, message: Mapping[str, Any], *, now: datetime) -> None:
        LinkEvent.objects.bulk_create(self._events(message, now))

    def _events(self, message: Mapping[str, Any], now: datetime) -> list[LinkEvent]:
        fields = {"link": "nbiot", "at": now, **message}
        holds = fields.pop("holds", None)
        read = {"link": "nbiot", "at": now, "node_id": message["node_id"], "kind": LinkEventKind.HOLDS, "digest": holds}
        return [LinkEvent(**read)] * (holds is not None) + [LinkEvent(**fields)]

    def arrive_all(self, *, now: datetime, chance: Random | None = None) -> int:
        """By `chance` out of order, a third of them twice."""
        if chance is not None:
            self.air += [message for message in self.air if chance.random() < 0.33]
            chance.shuffle(self.air)
        LinkEvent.objects.bulk_create(event for message in self.air for event in self._events(message, now))
        count = len(self.air)
        self.air.clear()
        return count

    def _say(self, pk: int, kind: LinkEventKind, **fields: Any) -> None:
        self.air.append({"kind": kind, "node_id": pk, **fields})

    @transaction.atomic
    def _work_off(self, pk: int, sources: Sequence[str], state: DeliveryState, now: datetime) -> bool:
        found = Delivery.objects.filter(node_id=pk, state__in=sources).order_by("pk").first()
        if found is None or not Delivery.objects.filter(pk=found.pk, state__in=sources).update(
            state=state, updated_at=now
        ):
            return False
        about: dict[str, Any] = {"reference": found.reference, "delivery_id": found.pk}
        if found.command is not None:
            return self._command(pk, found, about, state)
        if state == DeliveryState.TRANSFERRING:
            self._say(pk, LinkEventKind.OFFERED, digest=self.nodes[pk].active, **about)
            self._say(pk, LinkEventKind.PROGRESS, received_bytes=500, total_bytes=1000, **about)
        elif state == DeliveryState.FAILED:
            self.nodes[pk].failed[found.reference] += 1
            self._say(pk, LinkEventKind.FAILED, cause="object5-result-4", **about)
        else:
            self._stage(pk, found, about)
        return True

    def _stage(self, pk: int, delivery: Delivery, about: Mapping[str, Any]) -> None:
        node = self.nodes[pk]
        update = NodeUpdate.objects.select_related("campaign", "image").get(pk=delivery.reference)
        assert update.image is not None
        node.taken[update.pk] += 1
        self._say(pk, LinkEventKind.DELIVERED, **about)
        if update.campaign.sequence < node.sequence:
            node.failed[update.pk] += 1
            node.report(NodeState.REJECTED, update.campaign.sequence, Cause.LOWER_SEQUENCE)
            self.speak(pk)
            return
        node.sequence = update.campaign.sequence
        node.standby, node.staged = update.image.digest, (update.pk, update.campaign.sequence, update.image.digest)
        node.report(NodeState.STAGED, node.sequence)

    def _command(self, pk: int, delivery: Delivery, about: Mapping[str, Any], state: DeliveryState) -> bool:
        """Back to the slot before, where it is whole."""
        node = self.nodes[pk]
        update = NodeUpdate.objects.select_related("image").get(pk=delivery.reference)
        assert update.image is not None
        node.staged = None
        if state != DeliveryState.DELIVERED or node.standby != update.image.digest:
            Delivery.objects.filter(pk=delivery.pk).update(state=DeliveryState.FAILED)
            node.failed[update.pk] += 1
            self._say(pk, LinkEventKind.FAILED, cause="command-refused", **about)
            return True
        node.active, node.standby = node.standby, node.active
        node.report(NodeState.REVERTED, node.sequence, Cause.COMMANDED)
        self._say(pk, LinkEventKind.DELIVERED, **about)
        self.speak(pk)
        return True
