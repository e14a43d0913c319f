"""What in a plan will stop the campaign by itself. Arithmetic, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from updates.campaigns.gates import GatePolicy


def plan_warnings(plan: Mapping[str, Any], gate: Mapping[str, Any]) -> list[str]:
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
