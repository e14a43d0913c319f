"""DeviceService: devices, their keys and sessions, and the downlink queue."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from chirpstack_api import api, common
from google.protobuf.empty_pb2 import Empty

from devices.simulator.chirpstack.access import Caller, page, rpc, times, timestamp
from devices.simulator.chirpstack.link_metrics import LinkMetrics
from devices.simulator.chirpstack.network_server import NetworkServer
from devices.simulator.chirpstack.queue import Item
from devices.simulator.chirpstack.store import Row, Store, invalid, parse_eui, parse_uuid, violates

_NO_EUI, _NO_KEY = "00" * 8, "00" * 16
_METRIC_SECONDS_MAX = 400 * 86400


class DeviceService(api.DeviceServiceServicer):
    def __init__(self, store: Store, network: NetworkServer) -> None:
        self.store, self._network = store, network

    @rpc
    def Create(self, request: api.CreateDeviceRequest, caller: Caller) -> Empty:
        device = self._parse(request)
        caller.may_application(device.application_id, write=True)
        self._validate(device)
        self.store.devices.add(device.dev_eui, device)
        return Empty()

    @rpc
    def Update(self, request: api.UpdateDeviceRequest, caller: Caller) -> Empty:
        device = self._parse(request)
        caller.may_device(device.dev_eui, write=True)
        caller.may_application(device.application_id)
        caller.may_profile(device.device_profile_id)
        self.store.devices.get(device.dev_eui)
        self._validate(device)
        self.store.devices.change(device.dev_eui, device)
        return Empty()

    def _parse(self, request: Any) -> api.Device:
        if not request.HasField("device"):
            raise invalid("device is missing")
        device = api.Device()
        device.CopyFrom(request.device)
        device.dev_eui = parse_eui(device.dev_eui)
        device.application_id = parse_uuid(device.application_id)
        device.device_profile_id = parse_uuid(device.device_profile_id)
        device.join_eui = parse_eui(device.join_eui) if device.join_eui else _NO_EUI
        return device

    def _validate(self, device: api.Device) -> None:
        if not device.name:
            raise invalid("Validation error: name is not set")
        application = self.store.applications.rows.get(device.application_id)
        profile = self.store.device_profiles.rows.get(device.device_profile_id)
        if application is None or profile is None:
            raise violates("foreign key")
        if application.value.tenant_id != profile.value.tenant_id:
            raise invalid("Validation error: Application and DeviceProfile must be under the same tenant")

    @rpc
    def Get(self, request: api.GetDeviceRequest, caller: Caller) -> api.GetDeviceResponse:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui)
        row = self.store.devices.get(dev_eui)
        return api.GetDeviceResponse(
            device=row.value,
            last_seen_at=timestamp(self._network.last_seen.get(dev_eui)),
            class_enabled=common.CLASS_A,
            **times(row),
        )

    @rpc
    def Delete(self, request: api.DeleteDeviceRequest, caller: Caller) -> Empty:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui, write=True)
        self.store.delete_device(dev_eui)
        self._network.forget(dev_eui)
        return Empty()

    @rpc
    def List(self, request: api.ListDevicesRequest, caller: Caller) -> api.ListDevicesResponse:
        """By application, or by device profile; `tags` must all be there."""
        application_id = parse_uuid(request.application_id) if request.application_id else ""
        profile_id = parse_uuid(request.device_profile_id) if request.device_profile_id else ""
        if application_id or not profile_id:
            caller.may_application(application_id)
        if profile_id:
            caller.may_profile(profile_id)
        rows = [
            row
            for row in self.store.devices.rows.values()
            if application_id in ("", row.value.application_id)
            and profile_id in ("", row.value.device_profile_id)
            and request.search.casefold() in f"{row.value.name}\n{row.value.dev_eui}".casefold()
            and all(row.value.tags.get(key) == value for key, value in request.tags.items())
        ]
        rows.sort(key=self._order(request.order_by), reverse=request.order_by_desc)
        return api.ListDevicesResponse(
            total_count=len(rows),
            result=[self._list_item(row) for row in page(rows, request.limit, request.offset)],
        )

    def _order(self, order_by: int) -> Any:
        order = api.ListDevicesRequest.OrderBy.Name(order_by)
        never = datetime.min.replace(tzinfo=UTC)
        keys = {
            "DEV_EUI": lambda row: row.value.dev_eui,
            "LAST_SEEN_AT": lambda row: self._network.last_seen.get(row.value.dev_eui, never),
        }
        return keys.get(order, lambda row: row.value.name)

    def _list_item(self, row: Row[Any]) -> api.DeviceListItem:
        device = row.value
        return api.DeviceListItem(
            dev_eui=device.dev_eui,
            name=device.name,
            description=device.description,
            device_profile_id=device.device_profile_id,
            device_profile_name=self.store.device_profiles.get(device.device_profile_id).value.name,
            last_seen_at=timestamp(self._network.last_seen.get(device.dev_eui)),
            tags=device.tags,
            **times(row),
        )

    # Keys and sessions

    @rpc
    def CreateKeys(self, request: api.CreateDeviceKeysRequest, caller: Caller) -> Empty:
        keys = self._parse_keys(request)
        caller.may_device(keys.dev_eui, write=True)
        if keys.dev_eui not in self.store.devices.rows:
            raise violates("foreign key")
        self.store.device_keys.add(keys.dev_eui, keys)
        return Empty()

    @rpc
    def GetKeys(self, request: api.GetDeviceKeysRequest, caller: Caller) -> api.GetDeviceKeysResponse:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui)
        row = self.store.device_keys.get(dev_eui)
        return api.GetDeviceKeysResponse(device_keys=row.value, **times(row))

    @rpc
    def UpdateKeys(self, request: api.UpdateDeviceKeysRequest, caller: Caller) -> Empty:
        keys = self._parse_keys(request)
        caller.may_device(keys.dev_eui, write=True)
        self.store.device_keys.change(keys.dev_eui, keys)
        return Empty()

    @rpc
    def DeleteKeys(self, request: api.DeleteDeviceKeysRequest, caller: Caller) -> Empty:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui, write=True)
        self.store.device_keys.delete(dev_eui)
        return Empty()

    @staticmethod
    def _parse_keys(request: Any) -> api.DeviceKeys:
        if not request.HasField("device_keys"):
            raise invalid("device_keys is missing")
        given = request.device_keys
        return api.DeviceKeys(
            dev_eui=parse_eui(given.dev_eui),
            nwk_key=parse_eui(given.nwk_key, 16),
            app_key=parse_eui(given.app_key, 16) if given.app_key else _NO_KEY,
            gen_app_key=parse_eui(given.gen_app_key, 16) if given.gen_app_key else _NO_KEY,
        )

    @rpc
    def FlushDevNonces(self, request: api.FlushDevNoncesRequest, caller: Caller) -> Empty:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui, write=True)
        self.store.device_keys.get(dev_eui)
        self._network.forget_nonces(dev_eui)
        return Empty()

    @rpc
    def GetActivation(self, request: api.GetDeviceActivationRequest, caller: Caller) -> api.GetDeviceActivationResponse:
        """Empty where the device has no session."""
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui)
        self.store.devices.get(dev_eui)
        session = self._network.sessions.get(dev_eui)
        if session is None:
            return api.GetDeviceActivationResponse()
        activation = api.DeviceActivation(
            dev_eui=dev_eui,
            dev_addr=session.dev_addr,
            f_cnt_up=session.f_cnt_up,
            n_f_cnt_down=session.f_cnt_down,
            a_f_cnt_down=session.f_cnt_down,
            **session.keys,
        )
        return api.GetDeviceActivationResponse(device_activation=activation)

    @rpc
    def Deactivate(self, request: api.DeactivateDeviceRequest, caller: Caller) -> Empty:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui, write=True)
        self._network.queue(dev_eui).flush()
        self._network.deactivate(dev_eui)
        return Empty()

    @rpc
    def GetRandomDevAddr(self, request: api.GetRandomDevAddrRequest, caller: Caller) -> api.GetRandomDevAddrResponse:
        caller.may_device(parse_eui(request.dev_eui))
        return api.GetRandomDevAddrResponse(dev_addr=f"{random.randrange(1 << 25):08x}")

    @rpc
    def GetLinkMetrics(
        self, request: api.GetDeviceLinkMetricsRequest, caller: Caller
    ) -> api.GetDeviceLinkMetricsResponse:
        dev_eui = parse_eui(request.dev_eui)
        if not request.HasField("start"):
            raise invalid("start is None")
        if not request.HasField("end"):
            raise invalid("end is None")
        caller.may_device(dev_eui)
        self.store.devices.get(dev_eui)
        start, end = (time.ToDatetime(tzinfo=UTC) for time in (request.start, request.end))
        if (end - start).total_seconds() > _METRIC_SECONDS_MAX:
            raise invalid(f"start, end: {end - start} apart, this stand-in counts at most 400 days")
        metrics = self._network.metrics.get(dev_eui, LinkMetrics())
        return metrics.answer(start, end, common.Aggregation.Name(request.aggregation))

    # The queue

    @rpc
    def Enqueue(self, request: api.EnqueueDeviceQueueItemRequest, caller: Caller) -> api.EnqueueDeviceQueueItemResponse:
        """Neither the size nor the activation of the device is checked here, as in ChirpStack."""
        if not request.HasField("queue_item"):
            raise invalid("queue_item is missing")
        given = request.queue_item
        dev_eui = parse_eui(given.dev_eui)
        caller.may_device(dev_eui, write=True)
        port = given.f_port & 0xFF
        if port == 0:
            raise invalid("Validation error: FPort must be between 1 - 255")
        if dev_eui not in self.store.devices.rows:
            raise violates("foreign key")
        item = Item(
            port,
            given.data,
            confirmed=given.confirmed,
            expires_at=given.expires_at.ToDatetime(tzinfo=UTC) if given.HasField("expires_at") else None,
            is_encrypted=given.is_encrypted,
            f_cnt_down=given.f_cnt_down if given.is_encrypted else None,
        )
        self._network.queue(dev_eui).put(item, flush=request.flush_queue)
        return api.EnqueueDeviceQueueItemResponse(id=item.id)

    @rpc
    def FlushQueue(self, request: api.FlushDeviceQueueRequest, caller: Caller) -> Empty:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui, write=True)
        self._network.queue(dev_eui).flush()
        return Empty()

    @rpc
    def GetQueue(self, request: api.GetDeviceQueueItemsRequest, caller: Caller) -> api.GetDeviceQueueItemsResponse:
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui)
        items = self._network.queue(dev_eui).items
        shown = [] if request.count_only else [_shown(dev_eui, item) for item in items]
        return api.GetDeviceQueueItemsResponse(total_count=len(items), result=shown)

    @rpc
    def GetNextFCntDown(
        self, request: api.GetDeviceNextFCntDownRequest, caller: Caller
    ) -> api.GetDeviceNextFCntDownResponse:
        """What an item that the client encrypts must be numbered with, behind those that wait."""
        dev_eui = parse_eui(request.dev_eui)
        caller.may_device(dev_eui)
        session = self._network.sessions.get(dev_eui)
        highest = max((item.f_cnt_down or 0 for item in self._network.queue(dev_eui).items), default=0)
        counter = max(session.f_cnt_down if session else 0, highest + 1)
        return api.GetDeviceNextFCntDownResponse(f_cnt_down=counter)


def _shown(dev_eui: str, item: Item) -> api.DeviceQueueItem:
    return api.DeviceQueueItem(
        id=item.id,
        dev_eui=dev_eui,
        confirmed=item.confirmed,
        f_port=item.port,
        data=item.data,
        is_pending=item.is_pending,
        f_cnt_down=item.f_cnt_down or 0,
        is_encrypted=item.is_encrypted,
        expires_at=timestamp(item.expires_at),
    )
