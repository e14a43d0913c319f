"""What a plan costs on the air, summed by link and by gateway. Estimated once for each kind of node, not for each node."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from devices.links import link_for
from devices.links.base import Estimate, RadioFacts
from devices.models import HardwareProfile

# A plan is read by people: gateways with the most to send.
GATEWAYS_MAX = 50


@dataclass
class _Sum:
    nodes: int = 0
    frames: int = 0
    bytes: int = 0
    bytes_full: int = 0
    airtime_s: float = 0.0
    hours: float = 0.0
    energy_j: float | None = None
    data_rates: Counter[str] = field(default_factory=Counter)
    assumed: Counter[str] = field(default_factory=Counter)


@dataclass
class _Gateway:
    nodes: int = 0
    airtime_s: float = 0.0
    hours: float = 0.0  # that the duty cycle asks for


class Costs:
    """Add each kind of node with its number; hours are those of the slowest node or of the busiest gateway."""

    def __init__(self) -> None:
        self._links: defaultdict[str, _Sum] = defaultdict(_Sum)
        self._gateways: defaultdict[str, _Gateway] = defaultdict(_Gateway)

    def add(
        self, *, link: str, profile: HardwareProfile, size: int, full: int, radio: RadioFacts | None, nodes: int
    ) -> Estimate:
        """`nodes` nodes that get `size` bytes each, `full` without a patch."""
        estimate = link_for(link).estimate(profile=profile, size=size, radio=radio)
        total = self._links[link]
        total.nodes += nodes
        total.frames += nodes * estimate.frames
        total.bytes += nodes * size
        total.bytes_full += nodes * full
        total.airtime_s += nodes * estimate.airtime_s
        total.hours = max(total.hours, estimate.hours)
        if estimate.energy_j is not None:
            total.energy_j = (total.energy_j or 0.0) + nodes * estimate.energy_j
        if estimate.assumed:
            total.assumed[estimate.assumed] += nodes
        if estimate.gateway_airtime_s:
            total.data_rates["unknown" if radio is None or radio.data_rate is None else f"DR{radio.data_rate}"] += nodes
            gateway = self._gateways[radio.gateway_id if radio is not None else ""]
            gateway.nodes += nodes
            gateway.airtime_s += nodes * estimate.gateway_airtime_s
            gateway.hours += nodes * estimate.gateway_airtime_s / estimate.gateway_duty / 3600
        return estimate

    def as_json(self) -> dict[str, Any]:
        """Keys `hours`, `airtime_s`, `links` and `gateways` of a plan. Gateway "" stands for those not known yet."""
        busiest = sorted(self._gateways.items(), key=lambda item: (-item[1].airtime_s, item[0]))
        # A gateway that is not known is many gateways: their airtime does not add up to one's hours.
        known = [gateway.hours for name, gateway in busiest if name]
        return {
            "hours": round(max([total.hours for total in self._links.values()] + known, default=0.0), 3),
            "airtime_s": round(sum(total.airtime_s for total in self._links.values()), 1),
            "links": [
                {
                    "link": link,
                    "nodes": total.nodes,
                    "frames": total.frames,
                    "bytes": total.bytes,
                    "bytes_full": total.bytes_full,
                    "airtime_s": round(total.airtime_s, 1),
                    "hours": round(total.hours, 3),
                    "energy_j": None if total.energy_j is None else round(total.energy_j, 1),
                    "data_rates": dict(sorted(total.data_rates.items())),
                    "assumed": [{"what": what, "nodes": nodes} for what, nodes in sorted(total.assumed.items())],
                }
                for link, total in sorted(self._links.items())
            ],
            "gateways": [
                {
                    "gateway": name,
                    "nodes": gateway.nodes,
                    "airtime_s": round(gateway.airtime_s, 1),
                    "hours": round(gateway.hours, 3) if name else None,
                }
                for name, gateway in busiest[:GATEWAYS_MAX]
            ],
        }
