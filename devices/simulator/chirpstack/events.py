"""The events of ChirpStack's integration protocol: who hears of what, and in which words."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from chirpstack_api import api, integration
from google.protobuf import json_format

from devices.simulator.chirpstack.queue import Item, Reason
from devices.simulator.chirpstack.store import Store

# application id, event name, device, body
Post = Callable[[api.HttpIntegration, str, str, bytes], None]

_DISCARDED: dict[Reason, tuple[str, str]] = {
    "too-big": ("DOWNLINK_PAYLOAD_SIZE", "Device queue-item discarded because it exceeds the max. payload size"),
    "expired": ("EXPIRED", "Device queue-item discarded because it has expired"),
    "old-counter": ("F_CNT_DOWN", "Device queue-item discarded because the frame-counter is invalid"),
}


class Events:
    """`post` gets each event in the encoding that its application has chosen; without an integration it is gone."""

    def __init__(self, store: Store, post: Post, region_config_id: str = "eu868") -> None:
        self._store, self._post, self._region = store, post, region_config_id

    def device_info(self, dev_eui: str) -> integration.DeviceInfo:
        """Raises Refused for an unknown device. Tags of the profile, over them those of the device."""
        device = self._store.devices.get(dev_eui).value
        application = self._store.applications.get(device.application_id).value
        profile = self._store.device_profiles.get(device.device_profile_id).value
        tenant = self._store.tenants.get(application.tenant_id).value
        return integration.DeviceInfo(
            tenant_id=tenant.id,
            tenant_name=tenant.name,
            application_id=application.id,
            application_name=application.name,
            device_profile_id=profile.id,
            device_profile_name=profile.name,
            device_name=device.name,
            dev_eui=dev_eui,
            tags={**profile.tags, **device.tags},
        )

    def up(self, dev_eui: str, **fields: Any) -> str:
        """The deduplication id."""
        deduplication_id = str(uuid.uuid4())
        event = integration.UplinkEvent(deduplication_id=deduplication_id, region_config_id=self._region, **fields)
        self._publish("up", dev_eui, event)
        return deduplication_id

    def join(self, dev_eui: str, dev_addr: str) -> None:
        event = integration.JoinEvent(
            deduplication_id=str(uuid.uuid4()), dev_addr=dev_addr, region_config_id=self._region
        )
        self._publish("join", dev_eui, event)

    def ack(self, dev_eui: str, item: Item, deduplication_id: str, *, acknowledged: bool) -> None:
        event = integration.AckEvent(
            deduplication_id=deduplication_id,
            queue_item_id=item.id,
            acknowledged=acknowledged,
            f_cnt_down=item.f_cnt_down or 0,
        )
        self._publish("ack", dev_eui, event)

    def txack(self, dev_eui: str, item: Item, downlink_id: int, gateway_id: str, tx_info: Any) -> None:
        event = integration.TxAckEvent(
            downlink_id=downlink_id,
            queue_item_id=item.id,
            f_cnt_down=item.f_cnt_down or 0,
            gateway_id=gateway_id,
            tx_info=tx_info,
        )
        self._publish("txack", dev_eui, event)

    def gateway_error(self, dev_eui: str, status: str) -> None:
        self.log(dev_eui, "ERROR", "DOWNLINK_GATEWAY", status)

    def discarded(self, dev_eui: str, item: Item, reason: Reason, *, room: int, next_counter: int) -> None:
        code, text = _DISCARDED[reason]
        context = {"queue_item_id": item.id}
        if reason == "too-big":
            context |= {"max_payload_size": str(room), "item_size": str(len(item.data))}
        elif reason == "old-counter":
            context |= {"device_f_cnt_down": str(next_counter), "queue_item_f_cnt_down": str(item.f_cnt_down or 0)}
        self.log(dev_eui, "ERROR", code, text, context)

    def log(self, dev_eui: str, level: str, code: str, text: str, context: Mapping[str, str] | None = None) -> None:
        event = integration.LogEvent(level=level, code=code, description=text, context=dict(context or {}))
        self._publish("log", dev_eui, event)

    def _publish(self, name: str, dev_eui: str, event: Any) -> None:
        info = self.device_info(dev_eui)
        row = self._store.http_integrations.rows.get(info.application_id)
        if row is None:
            return
        event.device_info.CopyFrom(info)
        event.time.FromDatetime(datetime.now(UTC))
        encoded = event.SerializeToString() if row.value.encoding == api.PROTOBUF else as_json(event)
        self._post(row.value, name, dev_eui, encoded)


def as_json(event: Any) -> bytes:
    """The JSON mapping of proto3 as ChirpStack writes it: camelCase, defaults left out, bytes in base64, times with
    nanoseconds and the offset +00:00."""
    document = json_format.MessageToDict(event)
    if "time" in document:
        document["time"] = _nanoseconds(document["time"])
    for reception in document.get("rxInfo", []):
        reception["nsTime"] = _nanoseconds(reception["nsTime"])
    return json.dumps(document, separators=(",", ":")).encode()


def _nanoseconds(time: str) -> str:
    """2026-01-02T03:04:05.067Z -> 2026-01-02T03:04:05.067000000+00:00."""
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}+00:00"
