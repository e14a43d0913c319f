"""Tenants, device profiles, gateways and the internal service, as far as a client of the other two needs them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from chirpstack_api import api, common
from google.protobuf.empty_pb2 import Empty

from devices.simulator.chirpstack import eu868
from devices.simulator.chirpstack.access import Caller, by_name, page, rpc, times, timestamp
from devices.simulator.chirpstack.network_server import NetworkServer
from devices.simulator.chirpstack.store import Store, invalid, not_found, parse_eui, parse_uuid, violates

VERSION = "4.20.0"
REGION = "eu868"
_OFFLINE_AFTER = timedelta(minutes=10)


class TenantService(api.TenantServiceServicer):
    def __init__(self, store: Store, network: NetworkServer) -> None:
        self.store, self._network = store, network

    @rpc
    def Create(self, request: api.CreateTenantRequest, caller: Caller) -> api.CreateTenantResponse:
        if not request.HasField("tenant"):
            raise invalid("tenant is missing")
        caller.may(None, write=True)
        tenant = api.Tenant()
        tenant.CopyFrom(request.tenant)
        tenant.id = str(uuid.uuid4())
        if not tenant.name:
            raise invalid("Validation error: name is not set")
        self.store.tenants.add(tenant.id, tenant)
        return api.CreateTenantResponse(id=tenant.id)

    @rpc
    def Get(self, request: api.GetTenantRequest, caller: Caller) -> api.GetTenantResponse:
        key = parse_uuid(request.id)
        caller.may(key)
        row = self.store.tenants.get(key)
        return api.GetTenantResponse(tenant=row.value, **times(row))

    @rpc
    def Delete(self, request: api.DeleteTenantRequest, caller: Caller) -> Empty:
        key = parse_uuid(request.id)
        caller.may(None, write=True)
        before = set(self.store.devices.rows)
        self.store.delete_tenant(key)
        for dev_eui in before - set(self.store.devices.rows):
            self._network.forget(dev_eui)
        return Empty()

    @rpc
    def List(self, request: api.ListTenantsRequest, caller: Caller) -> api.ListTenantsResponse:
        caller.may(None)
        rows = by_name(list(self.store.tenants.rows.values()), request.search)
        result = [
            api.TenantListItem(
                id=row.value.id, name=row.value.name, can_have_gateways=row.value.can_have_gateways, **times(row)
            )
            for row in page(rows, request.limit, request.offset)
        ]
        return api.ListTenantsResponse(total_count=len(rows), result=result)


class DeviceProfileService(api.DeviceProfileServiceServicer):
    def __init__(self, store: Store, network: NetworkServer) -> None:
        self.store, self._network = store, network

    @rpc
    def Create(self, request: api.CreateDeviceProfileRequest, caller: Caller) -> api.CreateDeviceProfileResponse:
        profile = self._parse(request)
        profile.tenant_id = parse_uuid(profile.tenant_id)
        caller.may(profile.tenant_id, write=True)
        if not profile.name:
            raise invalid("Validation error: name is not set")
        if profile.tenant_id not in self.store.tenants.rows:
            raise violates("foreign key")
        profile.id = str(uuid.uuid4())
        self.store.device_profiles.add(profile.id, profile)
        return api.CreateDeviceProfileResponse(id=profile.id)

    @rpc
    def Get(self, request: api.GetDeviceProfileRequest, caller: Caller) -> api.GetDeviceProfileResponse:
        key = parse_uuid(request.id)
        caller.may_profile(key)
        row = self.store.device_profiles.get(key)
        return api.GetDeviceProfileResponse(device_profile=row.value, **times(row))

    @rpc
    def Update(self, request: api.UpdateDeviceProfileRequest, caller: Caller) -> Empty:
        profile = self._parse(request)
        profile.id = parse_uuid(profile.id)
        caller.may_profile(profile.id, write=True)
        profile.tenant_id = self.store.device_profiles.get(profile.id).value.tenant_id
        self.store.device_profiles.change(profile.id, profile)
        return Empty()

    @rpc
    def Delete(self, request: api.DeleteDeviceProfileRequest, caller: Caller) -> Empty:
        key = parse_uuid(request.id)
        caller.may_profile(key, write=True)
        before = set(self.store.devices.rows)
        self.store.delete_profile(key)
        for dev_eui in before - set(self.store.devices.rows):
            self._network.forget(dev_eui)
        return Empty()

    @rpc
    def List(self, request: api.ListDeviceProfilesRequest, caller: Caller) -> api.ListDeviceProfilesResponse:
        tenant_id = parse_uuid(request.tenant_id)
        caller.may(tenant_id)
        rows = [row for row in self.store.device_profiles.rows.values() if row.value.tenant_id == tenant_id]
        rows = by_name(rows, request.search)
        same: tuple[str, ...] = ("id", "name", "region", "mac_version", "reg_params_revision", "supports_otaa")
        same += ("supports_class_b", "supports_class_c")
        result = [
            api.DeviceProfileListItem(**{name: getattr(row.value, name) for name in same}, **times(row))
            for row in page(rows, request.limit, request.offset)
        ]
        return api.ListDeviceProfilesResponse(total_count=len(rows), result=result)

    @staticmethod
    def _parse(request: Any) -> api.DeviceProfile:
        if not request.HasField("device_profile"):
            raise invalid("device_profile is missing")
        profile = api.DeviceProfile()
        profile.CopyFrom(request.device_profile)
        return profile


class GatewayService(api.GatewayServiceServicer):
    def __init__(self, store: Store, network: NetworkServer) -> None:
        self.store, self._network = store, network

    @rpc
    def Create(self, request: api.CreateGatewayRequest, caller: Caller) -> Empty:
        if not request.HasField("gateway"):
            raise invalid("gateway is missing")
        gateway = api.Gateway()
        gateway.CopyFrom(request.gateway)
        gateway.gateway_id, gateway.tenant_id = parse_eui(gateway.gateway_id), parse_uuid(gateway.tenant_id)
        caller.may(gateway.tenant_id, write=True)
        if not gateway.name:
            raise invalid("Validation error: name is not set")
        if gateway.tenant_id not in self.store.tenants.rows:
            raise violates("foreign key")
        self.store.gateways.add(gateway.gateway_id, gateway)
        return Empty()

    @rpc
    def Get(self, request: api.GetGatewayRequest, caller: Caller) -> api.GetGatewayResponse:
        key = parse_eui(request.gateway_id)
        caller.may_gateway(key)
        row = self.store.gateways.get(key)
        seen = timestamp(self._network.gateway_seen.get(key))
        return api.GetGatewayResponse(gateway=row.value, last_seen_at=seen, **times(row))

    @rpc
    def Delete(self, request: api.DeleteGatewayRequest, caller: Caller) -> Empty:
        key = parse_eui(request.gateway_id)
        caller.may_gateway(key, write=True)
        self.store.gateways.delete(key)
        return Empty()

    @rpc
    def List(self, request: api.ListGatewaysRequest, caller: Caller) -> api.ListGatewaysResponse:
        """Of one tenant, or of all without `tenant_id` (administrators only)."""
        tenant_id = parse_uuid(request.tenant_id) if request.tenant_id else None
        caller.may(tenant_id)
        rows = [row for row in self.store.gateways.rows.values() if tenant_id in (None, row.value.tenant_id)]
        rows = by_name(rows, request.search)
        result = [self._list_item(row) for row in page(rows, request.limit, request.offset)]
        return api.ListGatewaysResponse(total_count=len(rows), result=result)

    def _list_item(self, row: Any) -> api.GatewayListItem:
        gateway = row.value
        seen = self._network.gateway_seen.get(gateway.gateway_id)
        state = api.NEVER_SEEN if seen is None else api.ONLINE
        if seen is not None and datetime.now(UTC) - seen > _OFFLINE_AFTER:
            state = api.OFFLINE
        return api.GatewayListItem(
            tenant_id=gateway.tenant_id,
            gateway_id=gateway.gateway_id,
            name=gateway.name,
            description=gateway.description,
            last_seen_at=timestamp(seen),
            state=state,
            **times(row),
        )


class InternalService(api.InternalServiceServicer):
    def __init__(self, store: Store, network: NetworkServer) -> None:
        self.store, self._network = store, network

    @rpc
    def GetVersion(self, request: Empty, caller: Caller) -> api.GetVersionResponse:
        caller.is_known()
        return api.GetVersionResponse(version=VERSION)

    @rpc
    def ListRegions(self, request: Empty, caller: Caller) -> api.ListRegionsResponse:
        caller.is_known()
        return api.ListRegionsResponse(regions=[api.RegionListItem(id=REGION, region=common.EU868)])

    @rpc
    def GetRegion(self, request: api.GetRegionRequest, caller: Caller) -> api.GetRegionResponse:
        caller.is_known()
        if request.id != REGION:
            raise not_found(request.id)
        channels = [api.RegionChannel(frequency=frequency, dr_min=0, dr_max=5) for frequency in eu868.UPLINK_CHANNELS]
        windows = self._network.windows
        return api.GetRegionResponse(
            id=REGION,
            region=common.EU868,
            uplink_channels=channels,
            rx1_delay=int(eu868.RX1_DELAY_S),
            rx1_dr_offset=windows.rx1_dr_offset,
            rx2_dr=windows.rx2_data_rate,
            rx2_frequency=eu868.RX2_FREQUENCY,
        )

    @rpc
    def CreateApiKey(self, request: api.CreateApiKeyRequest, caller: Caller) -> None:
        caller.is_a_key()

    @rpc
    def ListApiKeys(self, request: api.ListApiKeysRequest, caller: Caller) -> None:
        caller.is_a_key()

    @rpc
    def Profile(self, request: Empty, caller: Caller) -> None:
        caller.is_a_key()
