"""What every link can do, whatever its radio: it carries opaque bytes and writes what happened as LinkEvent rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from devices.models import HardwareProfile, LinkKind

FULL_BUNDLE = "*"


@dataclass(frozen=True)
class Estimate:
    """What it takes to bring some bytes to one node of a profile, without loss."""

    frames: int  # messages on the air, both directions
    airtime_s: float  # seconds during which somebody sends
    hours: float  # from the start of the node's window to the last byte
    energy_j: float | None  # joules of the node's radio; None where the profile names no energy figure
    gateway_airtime_s: float = 0.0  # of airtime_s, what a shared gateway sends; 0 where there is none to share
    gateway_duty: float = 1.0  # share of the time that such a gateway may send
    assumed: str = ""  # what was not known and taken for the worst, in plain words


@dataclass(frozen=True)
class RadioFacts:
    """What is known of how well a node is heard. `data_rate` None: never heard."""

    region: str
    data_rate: int | None
    gateway_id: str = ""


@dataclass(frozen=True)
class Recipient:
    """A node, and the number under which whoever asks will recognise it in events."""

    node_id: int
    reference: int


class Link(Protocol):
    kind: LinkKind

    def estimate(self, *, profile: HardwareProfile, size: int, radio: RadioFacts | None = None) -> Estimate:
        """For a bundle of `size` bytes; `radio` where the time depends on how well the node is heard."""
        ...

    def offer(self, *, bundles: Mapping[str, bytes], nodes: Sequence[Recipient], now: datetime) -> None:
        """Queues for each node the bundle of the base that it will say it runs, when it wakes.

        Keys of `bundles` are base digests (64 hex digits) or "*" for the full image. Runs in the caller's
        transaction with a fixed number of queries. An open delivery of the same reference is left as it is.
        Raises ValueError for a key that is neither.
        """
        ...

    def command(self, *, command: bytes, nodes: Sequence[Recipient], now: datetime) -> None:
        """Queues a command of 1..64 bytes; same rules as `offer`. Raises ValueError for another length."""
        ...

    def cancel(self, *, references: Sequence[int], now: datetime) -> int:
        """Ends the open deliveries of these references; how many there were."""
        ...
