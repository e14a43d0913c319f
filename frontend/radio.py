"""How well a node is heard, and what its newest delivery has taken on the air."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from devices.links.lorawan.regions import REGIONS
from devices.models import Delivery, FragmentSession, LinkKind, LoRaWanDevice, Node, NodeRadio


@dataclass(frozen=True)
class Radio:
    """`downlink_bytes`: most bytes of one downlink at the present data rate."""

    at: datetime | None = None
    region: str = ""
    data_rate: int | None = None
    rssi_dbm: int | None = None
    snr_db: float | None = None
    gateway_id: str = ""
    frame_counter: int = 0
    downlink_bytes: int | None = None
    server: str = ""
    gateway_refusals: int = 0
    delivery: Delivery | None = None
    session: FragmentSession | None = None


def radio_of(node: Node) -> Radio | None:
    """None for a node of another link. Three queries."""
    if node.link != LinkKind.LORAWAN:
        return None
    heard = NodeRadio.objects.filter(node=node).first()
    device = LoRaWanDevice.objects.filter(node=node).select_related("server").first()
    delivery = Delivery.objects.filter(node=node).select_related("session").order_by("-pk").first()
    region = REGIONS.get(heard.region) if heard else None
    return Radio(
        at=heard.at if heard else None,
        region=heard.region if heard else device.region if device else "",
        data_rate=heard.data_rate if heard else None,
        rssi_dbm=heard.rssi_dbm if heard else None,
        snr_db=heard.snr_db if heard else None,
        gateway_id=heard.gateway_id if heard else "",
        frame_counter=heard.frame_counter if heard else 0,
        downlink_bytes=region.downlink_limit(heard.data_rate) if heard and region else None,
        server=device.server.name if device else "",
        gateway_refusals=device.gateway_refusals if device else 0,
        delivery=delivery,
        session=getattr(delivery, "session", None),
    )
