"""What a plan costs on each link, and what in it will stop the campaign by itself. Arithmetic, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from devices.links.base import Estimate
from updates.campaigns.gates import GatePolicy


class LinkCosts:
    """Sums over nodes, a link at a time. `hours` is the longest transfer of one node, once it is awake."""

    def __init__(self) -> None:
        self._by_link: dict[str, dict[str, float]] = {}

    def add(self, *, link: str, nodes: int, size: int, full: int, estimate: Estimate) -> None:
        """`nodes` nodes that get `size` bytes each, `full` without a patch."""
        row = self._by_link.setdefault(
            link, {"nodes": 0, "bytes": 0, "bytes_full": 0, "frames": 0, "airtime_s": 0.0, "hours": 0.0}
        )
        row["nodes"] += nodes
        row["bytes"] += nodes * size
        row["bytes_full"] += nodes * full
        row["frames"] += nodes * estimate.frames
        row["airtime_s"] += nodes * estimate.airtime_s
        row["hours"] = max(row["hours"], estimate.hours)

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {"link": link, **row, "airtime_s": round(row["airtime_s"], 1), "hours": round(row["hours"], 3)}
            for link, row in sorted(self._by_link.items())
        ]


def warnings(plan: Mapping[str, Any], gate: Mapping[str, Any]) -> list[str]:
    """Sentences about waves after which the gate cannot decide: it counts all waves opened so far, and holds."""
    needed = GatePolicy.read(gate).minimum_sample
    opened, held = 0, []
    for wave in plan["waves"]:
        opened += wave["nodes"]
        if 0 < opened < needed:
            held.append((wave["index"] + 1, opened))
    if not held:
        return []
    number, nodes = held[0]
    which = f"wave {number}" if len(held) == 1 else f"waves {number} to {held[-1][0]}"
    sentence = (
        f"The campaign will hold after {which}: wave {number} reaches {nodes} node{'s' if nodes != 1 else ''} so far, "
        f"and the gate needs {needed} ended updates to decide. Make the first wave larger, or ask for fewer samples; "
        "else an approver has to let it go on each time."
    )
    return [sentence]
