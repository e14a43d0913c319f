"""Names under which ticks stand among the last runs."""

from __future__ import annotations

# The round over all campaigns.
TICK = "tick"


def tick_of(campaign_id: int) -> str:
    return f"{TICK}:{campaign_id}"
