"""The contract is tested on the stand-in, and on a live ChirpStack where CHIRPSTACK_URL (HOST:PORT of its gRPC API) and
CHIRPSTACK_TOKEN (an administrator's API key) are set. All objects are made in a tenant of their own and removed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from chirpstack_api import api, common

from devices.simulator.lorawan.background import BackgroundChirpStack
from tests.integration.simulator.application import Application


@dataclass(frozen=True)
class Contract:
    """A device in an application of a tenant that is only there for these tests."""

    application: Application
    address: str
    tenant_id: str
    application_id: str
    profile_id: str
    dev_eui: str


# Of an address as browsers show it, gRPC takes host and port.
LIVE = os.environ.get("CHIRPSTACK_URL", "").split("://")[-1].rstrip("/"), os.environ.get("CHIRPSTACK_TOKEN", "")


@pytest.fixture(params=["stand-in", "live"] if all(LIVE) else ["stand-in"], scope="package")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and token."""
    if request.param == "live":
        yield LIVE
    else:
        with BackgroundChirpStack(tmp_path_factory.mktemp("chirpstack")) as stand_in:
            yield stand_in.address, stand_in.token


@pytest.fixture
def contract(server: tuple[str, str]) -> Iterator[Contract]:
    application = Application(*server)
    call = application.call
    tenant = api.Tenant(name=f"conformance {secrets.token_hex(4)}")
    tenant_id = call(application.tenants.Create, api.CreateTenantRequest(tenant=tenant)).id
    try:
        profile = api.DeviceProfile(
            tenant_id=tenant_id,
            name="class A",
            region=common.EU868,
            mac_version=common.LORAWAN_1_0_4,
            reg_params_revision=common.RP002_1_0_3,
            supports_otaa=True,
            adr_algorithm_id="default",
        )
        profile_id = call(application.profiles.Create, api.CreateDeviceProfileRequest(device_profile=profile)).id
        group = api.Application(tenant_id=tenant_id, name="conformance")
        application_id = call(application.applications.Create, api.CreateApplicationRequest(application=group)).id
        dev_eui = secrets.token_hex(8)
        device = api.Device(
            dev_eui=dev_eui,
            name="device",
            application_id=application_id,
            device_profile_id=profile_id,
            tags={"site": "plant-3"},
        )
        call(application.devices.Create, api.CreateDeviceRequest(device=device))
        yield Contract(application, server[0], tenant_id, application_id, profile_id, dev_eui)
    finally:
        call(application.tenants.Delete, api.DeleteTenantRequest(id=tenant_id))
        application.close()
