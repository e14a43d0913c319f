"""Bundles that nodes pull: which token stands for which bytes, and how far each node has come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from devices import selectors
from devices.links.nbiot.store import Store
from devices.models import Delivery, LinkKind
from fleet.blobs.models import load

CACHE_BYTES = 64 * 1024 * 1024
TRANSFERS_MAX = 20_000
PROGRESS_STEP = 0.10


@dataclass(eq=False)
class Transfer:
    delivery: Delivery
    body: bytes
    etag: bytes  # first 8 bytes of the SHA-256 of the body
    begun: bool = False  # PostgreSQL knows that bytes left
    received: int = 0  # the farthest byte that left
    reported: int | None = None  # what the last PROGRESS event said

    def advance(self, end: int) -> bool:
        """Notes that the bytes up to `end` left; True when a PROGRESS event is due: at first, then each tenth."""
        self.received = max(self.received, end)
        total = len(self.body)
        if (
            self.reported is None
            or self.received - self.reported >= PROGRESS_STEP * total
            or (self.received == total > self.reported)
        ):
            self.reported = self.received
            return True
        return False


class Transfers:
    """A cache over PostgreSQL: what was evicted, or lost with the process, is loaded again at the next request."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._transfers: OrderedDict[str, Transfer] = OrderedDict()
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._body_bytes = 0

    async def find(self, token: str) -> Transfer | None:
        """None for a token that is unknown, cancelled or done. Raises DatabaseDown."""
        if transfer := self._transfers.get(token):
            self._transfers.move_to_end(token)
            return transfer
        delivery = await self._store.read(selectors.delivery_by_token, link=LinkKind.NBIOT, token=token)
        if delivery is None or delivery.bundle is None:
            return None
        digest = delivery.bundle.blob_id
        transfer = Transfer(delivery, await self._body(digest), bytes.fromhex(digest)[:8])
        # Two requests may have loaded it at the same time.
        transfer = self._transfers.setdefault(token, transfer)
        if len(self._transfers) > TRANSFERS_MAX:
            self._transfers.popitem(last=False)
        return transfer

    async def _body(self, digest: str) -> bytes:
        if digest not in self._bodies:
            body = await self._store.read(load, digest)
            if digest not in self._bodies:
                self._bodies[digest] = body
                self._body_bytes += len(body)
            while self._body_bytes > CACHE_BYTES and len(self._bodies) > 1:
                _, evicted = self._bodies.popitem(last=False)
                self._body_bytes -= len(evicted)
            return body
        self._bodies.move_to_end(digest)
        return self._bodies[digest]

    def drop(self, token: str) -> None:
        self._transfers.pop(token, None)

    def deliveries(self) -> list[int]:
        return [transfer.delivery.pk for transfer in self._transfers.values()]

    def keep_only(self, open_bundles: Mapping[int, int | None], *, asked: Iterable[int]) -> None:
        """Drops those of `asked` that are closed, or stand for another bundle by now."""
        asked = set(asked)
        stale = [
            token
            for token, transfer in self._transfers.items()
            if transfer.delivery.pk in asked and open_bundles.get(transfer.delivery.pk) != transfer.delivery.bundle_id
        ]
        for token in stale:
            del self._transfers[token]
