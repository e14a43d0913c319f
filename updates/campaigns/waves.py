"""Which wave a node is in: a stable salted hash, stratified, so that growing a percentage never reshuffles."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


def position(salt: str, node_id: int) -> int:
    """A node's place in a campaign, 0 to 2^64 - 1, the same whenever it is asked."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{node_id}".encode()).digest()[:8], "big")


def assign(*, salt: str, nodes: Iterable[tuple[int, Hashable]], percents: Sequence[float]) -> dict[int, int]:
    """Wave index by node id.

    `nodes` are (node id, stratum); `percents` are cumulative, rise, and end at 100. Within each stratum the nodes
    stand in hash order, and the first wave takes at least one of each: a profile without a canary would be
    updated on the word of another.
    """
    if list(percents) != sorted(set(percents)) or not percents or percents[-1] != 100 or percents[0] <= 0:
        raise ValueError(f"percents {list(percents)} must rise from above 0 to exactly 100, as in [5, 25, 100]")
    strata: defaultdict[Hashable, list[int]] = defaultdict(list)
    for node_id, stratum in nodes:
        strata[stratum].append(node_id)
    waves: dict[int, int] = {}
    for members in strata.values():
        # By id first, so that two nodes of one position, if ever, have a rank too. A pair a node would take twice the memory.
        members.sort()
        members.sort(key=lambda node_id: position(salt, node_id))
        ends = [max(1, round(len(members) * percent / 100)) for percent in percents]
        for rank, node_id in enumerate(members):
            waves[node_id] = next(index for index, end in enumerate(ends) if rank < end)
    return waves


def wave_of(*, salt: str, node_id: int, percents: Sequence[float]) -> int:
    """The wave of a node that joins later, by its hash alone: it has no rank among nodes that were planned before it."""
    share = 100 * position(salt, node_id) / 2**64
    return next((index for index, percent in enumerate(percents) if share < percent), len(percents) - 1)
