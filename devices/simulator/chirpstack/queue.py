"""The downlink queue of one device, as ChirpStack v4 keeps it. Times are wall-clock times, as clients give them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Reason = Literal["unacknowledged", "expired", "too-big", "old-counter"]


@dataclass
class Item:
    port: int
    data: bytes
    confirmed: bool = False
    expires_at: datetime | None = None
    is_encrypted: bool = False
    f_cnt_down: int | None = None  # set when it was sent, or by the client of an encrypted item
    is_pending: bool = False  # was sent, waits for its acknowledgement
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Choice:
    """`item`: what to send now, `more`: whether others wait behind it; `discarded` went for the reason given."""

    item: Item | None
    more: bool
    discarded: list[tuple[Reason, Item]]


class DeviceQueue:
    """First in, first out."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def put(self, item: Item, *, flush: bool = False) -> None:
        """`flush`: first drop what does not wait for an acknowledgement."""
        if flush:
            self.items = [kept for kept in self.items if kept.is_pending]
        self.items.append(item)

    def flush(self) -> None:
        self.items.clear()

    def acknowledged(self) -> Item | None:
        """Take the item out that waited for the acknowledgement which has come."""
        pending = next((item for item in self.items if item.is_pending), None)
        if pending is not None:
            self.items.remove(pending)
        return pending

    def choose(self, *, room: int, next_counter: int, now: datetime) -> Choice:
        """The item for the windows of this uplink. `room`: bytes that RX1 can carry."""
        discarded: list[tuple[Reason, Item]] = []
        while self.items:
            item = self.items[0]
            reason = self._unfit(item, room, next_counter, now)
            if reason is None:
                return Choice(item, len(self.items) > 1, discarded)
            discarded.append((reason, self.items.pop(0)))
        return Choice(None, False, discarded)

    def sent(self, item: Item, counter: int) -> None:
        """A gateway has put it on air. It may have been flushed meanwhile."""
        item.f_cnt_down = counter
        if item.confirmed:
            item.is_pending = True
        elif item in self.items:
            self.items.remove(item)

    @staticmethod
    def _unfit(item: Item, room: int, next_counter: int, now: datetime) -> Reason | None:
        if item.is_pending:  # in class A the uplink that starts this choice was the one to acknowledge it
            return "unacknowledged"
        if item.expires_at is not None and item.expires_at < now:
            return "expired"
        if len(item.data) > room:
            return "too-big"
        if item.is_encrypted and (item.f_cnt_down or 0) < next_counter:
            return "old-counter"
        return None
