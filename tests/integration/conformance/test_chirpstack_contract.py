from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from chirpstack_api import api
from google.protobuf.empty_pb2 import Empty

from tests.integration.conformance.conftest import Contract

UNKNOWN_ID, UNKNOWN_EUI = str(uuid.UUID(int=7)), "00000000000000a7"


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def device_of(contract: Contract, **fields: Any) -> api.Device:
    values = {
        "dev_eui": contract.dev_eui,
        "name": "device",
        "application_id": contract.application_id,
        "device_profile_id": contract.profile_id,
    }
    return api.Device(**{**values, **fields})


# Authentication


def test_a_call_without_a_token_is_not_authenticated(contract: Contract) -> None:
    devices = contract.application.devices
    request = api.GetDeviceRequest(dev_eui=contract.dev_eui)
    assert refusal(lambda: devices.Get(request)) == (grpc.StatusCode.UNAUTHENTICATED, "no authorization provided")


@pytest.mark.parametrize("value", ["Bearer nonsense", "Bearer a.b.c", "Basic YTpi", "Bearer "])
def test_an_invalid_token_is_not_authenticated(contract: Contract, value: str) -> None:
    devices, request = contract.application.devices, api.GetDeviceRequest(dev_eui=contract.dev_eui)
    code, _ = refusal(lambda: devices.Get(request, metadata=[("authorization", value)]))
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_a_token_with_another_signature_is_not_authenticated(contract: Contract) -> None:
    _, token = contract.application.metadata[0]
    head, body, signature = token.split(".")
    forged = f"{head}.{body}.{signature[::-1]}"
    devices, request = contract.application.devices, api.GetDeviceRequest(dev_eui=contract.dev_eui)
    code, _ = refusal(lambda: devices.Get(request, metadata=[("authorization", forged)]))
    assert code == grpc.StatusCode.UNAUTHENTICATED


def test_a_bad_argument_is_refused_before_a_missing_token(contract: Contract) -> None:
    applications = contract.application.applications
    code, _ = refusal(lambda: applications.Get(api.GetApplicationRequest(id="x")))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


def test_any_key_may_ask_for_the_version(contract: Contract) -> None:
    internal = api.InternalServiceStub(contract.application.channel)
    assert contract.application.call(internal.GetVersion, Empty()).version


# Error codes


def test_a_bad_uuid_is_an_invalid_argument_and_a_bad_eui_is_internal(contract: Contract) -> None:
    application = contract.application
    code, _ = refusal(
        lambda: application.call(application.applications.Get, api.GetApplicationRequest(id="not-a-uuid"))
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    code, _ = refusal(lambda: application.call(application.devices.Get, api.GetDeviceRequest(dev_eui="not-hex")))
    assert code == grpc.StatusCode.INTERNAL


def test_an_unknown_object_is_not_found_and_named(contract: Contract) -> None:
    application = contract.application
    assert refusal(
        lambda: application.call(application.applications.Get, api.GetApplicationRequest(id=UNKNOWN_ID))
    ) == (grpc.StatusCode.NOT_FOUND, f"Object does not exist (id: {UNKNOWN_ID})")
    assert refusal(lambda: application.call(application.devices.Get, api.GetDeviceRequest(dev_eui=UNKNOWN_EUI))) == (
        grpc.StatusCode.NOT_FOUND,
        f"Object does not exist (id: {UNKNOWN_EUI})",
    )


def test_a_request_without_its_object_is_an_invalid_argument(contract: Contract) -> None:
    application = contract.application
    for method, request in (
        (application.devices.Enqueue, api.EnqueueDeviceQueueItemRequest()),
        (application.devices.Create, api.CreateDeviceRequest()),
        (application.applications.Create, api.CreateApplicationRequest()),
        (application.applications.CreateHttpIntegration, api.CreateHttpIntegrationRequest()),
    ):
        assert refusal(lambda method=method, request=request: application.call(method, request))[0] == (  # type: ignore[misc]
            grpc.StatusCode.INVALID_ARGUMENT
        )


def test_a_device_twice_or_in_an_unknown_application_is_internal(contract: Contract) -> None:
    application = contract.application
    twice = api.CreateDeviceRequest(device=device_of(contract))
    assert refusal(lambda: application.call(application.devices.Create, twice))[0] == grpc.StatusCode.INTERNAL


def test_a_device_without_a_name_is_refused(contract: Contract) -> None:
    application = contract.application
    nameless = api.CreateDeviceRequest(device=device_of(contract, dev_eui=UNKNOWN_EUI, name=""))
    code, text = refusal(lambda: application.call(application.devices.Create, nameless))
    assert (code, "name" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)


# The queue


@pytest.mark.parametrize("port", [0, 256, 512])
def test_a_port_that_is_zero_in_its_low_byte_is_refused(contract: Contract, port: int) -> None:
    assert refusal(lambda: contract.application.enqueue(contract.dev_eui, port, b"a")) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Validation error: FPort must be between 1 - 255",
    )


def test_a_port_above_255_is_cut_to_its_low_byte(contract: Contract) -> None:
    contract.application.enqueue(contract.dev_eui, 257, b"a")
    assert [item.f_port for item in contract.application.queue(contract.dev_eui)] == [1]


def test_items_queue_in_the_order_they_came_whatever_their_size_and_without_a_session(contract: Contract) -> None:
    payloads = [b"a", bytes(300), b"", b"b"]
    ids = [contract.application.enqueue(contract.dev_eui, 201, payload) for payload in payloads]
    queue = contract.application.queue(contract.dev_eui)
    assert [(item.id, item.data, item.is_pending) for item in queue] == [
        (key, payload, False) for key, payload in zip(ids, payloads, strict=True)
    ]


def test_an_item_is_given_back_as_it_was_put_in(contract: Contract) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    contract.application.enqueue(contract.dev_eui, 26, b"\x02", confirmed=True, expires_at=expires)
    item = contract.application.queue(contract.dev_eui)[0]
    assert (item.f_port, item.data, item.confirmed, item.dev_eui) == (26, b"\x02", True, contract.dev_eui)
    assert item.expires_at.ToDatetime(tzinfo=UTC) == expires


def test_counting_the_queue_gives_no_items(contract: Contract) -> None:
    contract.application.enqueue(contract.dev_eui, 26, b"\x02")
    request = api.GetDeviceQueueItemsRequest(dev_eui=contract.dev_eui, count_only=True)
    answer = contract.application.call(contract.application.devices.GetQueue, request)
    assert (answer.total_count, len(answer.result)) == (1, 0)


def test_flushing_empties_the_queue(contract: Contract) -> None:
    application = contract.application
    application.enqueue(contract.dev_eui, 1, b"a")
    fresh = application.enqueue(contract.dev_eui, 1, b"b", flush=True)
    assert [item.id for item in application.queue(contract.dev_eui)] == [fresh]
    application.call(application.devices.FlushQueue, api.FlushDeviceQueueRequest(dev_eui=contract.dev_eui))
    assert application.queue(contract.dev_eui) == []


def test_an_item_for_an_unknown_device_is_internal(contract: Contract) -> None:
    assert refusal(lambda: contract.application.enqueue(UNKNOWN_EUI, 1, b"a"))[0] == grpc.StatusCode.INTERNAL


# Devices, keys, sessions


def test_a_device_carries_its_tags_and_lists_in_its_application(contract: Contract) -> None:
    application = contract.application
    answer = application.call(application.devices.Get, api.GetDeviceRequest(dev_eui=contract.dev_eui))
    assert dict(answer.device.tags) == {"site": "plant-3"}
    assert not answer.HasField("last_seen_at")
    request = api.ListDevicesRequest(application_id=contract.application_id, limit=10)
    listed = application.call(application.devices.List, request)
    assert (listed.total_count, [item.dev_eui for item in listed.result]) == (1, [contract.dev_eui])
    assert listed.result[0].device_profile_name == "class A"


def test_a_list_without_a_limit_counts_and_gives_nothing(contract: Contract) -> None:
    application = contract.application
    request = api.ListDevicesRequest(application_id=contract.application_id)
    listed = application.call(application.devices.List, request)
    assert (listed.total_count, len(listed.result)) == (1, 0)


def test_a_page_begins_at_its_offset(contract: Contract) -> None:
    application = contract.application
    request = api.ListDevicesRequest(application_id=contract.application_id, limit=10, offset=1)
    assert list(application.call(application.devices.List, request).result) == []


def test_keys_are_made_once_and_read_back(contract: Contract) -> None:
    application = contract.application
    keys = api.DeviceKeys(dev_eui=contract.dev_eui, nwk_key="0A" * 16)
    application.call(application.devices.CreateKeys, api.CreateDeviceKeysRequest(device_keys=keys))
    answer = application.call(application.devices.GetKeys, api.GetDeviceKeysRequest(dev_eui=contract.dev_eui))
    assert answer.device_keys.nwk_key == "0a" * 16
    again = api.CreateDeviceKeysRequest(device_keys=keys)
    assert refusal(lambda: application.call(application.devices.CreateKeys, again))[0] == grpc.StatusCode.INTERNAL


def test_a_device_that_has_not_joined_has_no_activation(contract: Contract) -> None:
    application = contract.application
    request = api.GetDeviceActivationRequest(dev_eui=contract.dev_eui)
    answer = application.call(application.devices.GetActivation, request)
    assert not answer.HasField("device_activation")


def test_a_deleted_device_is_gone(contract: Contract) -> None:
    application = contract.application
    application.call(application.devices.Delete, api.DeleteDeviceRequest(dev_eui=contract.dev_eui))
    request = api.GetDeviceRequest(dev_eui=contract.dev_eui)
    assert refusal(lambda: application.call(application.devices.Get, request))[0] == grpc.StatusCode.NOT_FOUND


def test_applications_list_by_tenant(contract: Contract) -> None:
    application = contract.application
    request = api.ListApplicationsRequest(tenant_id=contract.tenant_id, limit=10)
    listed = application.call(application.applications.List, request)
    assert [(item.id, item.name) for item in listed.result] == [(contract.application_id, "conformance")]


# The HTTP integration


def settings(contract: Contract, **fields: Any) -> api.HttpIntegration:
    values = {
        "application_id": contract.application_id,
        "headers": {"Authorization": "Bearer secret"},
        "encoding": api.JSON,
        "event_endpoint_url": "http://127.0.0.1:9/events",
    }
    return api.HttpIntegration(**{**values, **fields})


def test_an_integration_is_made_read_changed_and_removed(contract: Contract) -> None:
    application, stub = contract.application, contract.application.applications
    get = api.GetHttpIntegrationRequest(application_id=contract.application_id)
    assert refusal(lambda: application.call(stub.GetHttpIntegration, get))[0] == grpc.StatusCode.NOT_FOUND
    application.call(stub.CreateHttpIntegration, api.CreateHttpIntegrationRequest(integration=settings(contract)))
    assert application.call(stub.GetHttpIntegration, get).integration == settings(contract)
    changed = settings(contract, encoding=api.PROTOBUF, headers={})
    application.call(stub.UpdateHttpIntegration, api.UpdateHttpIntegrationRequest(integration=changed))
    assert application.call(stub.GetHttpIntegration, get).integration == changed
    delete = api.DeleteHttpIntegrationRequest(application_id=contract.application_id)
    application.call(stub.DeleteHttpIntegration, delete)
    assert refusal(lambda: application.call(stub.GetHttpIntegration, get))[0] == grpc.StatusCode.NOT_FOUND


def test_a_second_integration_is_internal_and_changing_none_is_not_found(contract: Contract) -> None:
    application, stub = contract.application, contract.application.applications
    create = api.CreateHttpIntegrationRequest(integration=settings(contract))
    update = api.UpdateHttpIntegrationRequest(integration=settings(contract))
    assert refusal(lambda: application.call(stub.UpdateHttpIntegration, update))[0] == grpc.StatusCode.NOT_FOUND
    application.call(stub.CreateHttpIntegration, create)
    assert refusal(lambda: application.call(stub.CreateHttpIntegration, create))[0] == grpc.StatusCode.INTERNAL


def test_integrations_list_their_kinds(contract: Contract) -> None:
    application, stub = contract.application, contract.application.applications
    request = api.ListIntegrationsRequest(application_id=contract.application_id)
    before = {item.kind for item in application.call(stub.ListIntegrations, request).result}
    application.call(stub.CreateHttpIntegration, api.CreateHttpIntegrationRequest(integration=settings(contract)))
    after = {item.kind for item in application.call(stub.ListIntegrations, request).result}
    assert after - before == {api.HTTP}
