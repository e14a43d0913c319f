"""What must be here before anything can be sent, made on screen: profiles, firmware builds, single nodes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from devices.models import FirmwareBuild, HardwareProfile, Node, UnknownEndpoint
from devices.services import record_unknown_endpoint
from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.frontend.conftest import Fleet

SignIn = Callable[[Role], Client]
PROFILE = {
    "name": "stm32u5",
    "core": "cortex-m33",
    "chip": "stm32u575zi",
    "clock_hz": "160000000",
    "slot_bytes": "262144",
    "sram_bytes": "786432",
    "reserved_sram_bytes": "131072",
    "arena_fraction": "0.7",
    "runtime": "tflm",
    "kernel_library": "cmsis-nn",
    "rtos": "zephyr",
    "alignment": "16",
    "flash_erase_bytes": "8192",
    "flash_write_bytes": "16",
    "cache_line_bytes": "32",
    "slot_read_bytes_per_second": "40000000",
    "radio_joules_per_kibibyte": "1.5",
}
BUILD = {
    "name": "fw-2",
    "operators": "SOFTMAX, CONV_2D  FULLY_CONNECTED",
    "io_hash": "42f4f176",
    "runtime": "tflm",
    "agent_version": "3",
    "decoder_profile": "l",
    "decoder_ram_bytes": "24576",
    "forward_error_correction": "ts004-v2",
}


@pytest.fixture
def operator(db: None, sign_in: SignIn) -> Client:
    return sign_in(Role.OPERATOR)


def test_a_profile_is_made_with_its_numbers_and_listed_with_its_nodes(operator: Client) -> None:
    assert operator.post("/hardware/profiles/new/", PROFILE).status_code == 302

    profile = HardwareProfile.objects.get()
    assert profile.chip == "stm32u575zi"
    assert (profile.sram_bytes, profile.arena_limit_bytes) == (786_432, 458_752)
    assert (profile.radio_joules_per_kibibyte, profile.latency_deadline_ms) == (1.5, None)
    assert AuditEntry.objects.get(action="profile.created").object_id == str(profile.pk)
    factories.make_node(profile=profile)
    body = operator.get("/hardware/").content.decode()
    assert "448.0 KiB" in body
    assert '<a href="/nodes/?text=profile:stm32u5">1</a>' in body


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("reserved_sram_bytes", "786432", "leave some for the arena"),
        ("name", "with space", "slug"),
        ("arena_fraction", "7", "less than or equal to 1"),
        ("slot_bytes", "", "required"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_at_its_field(operator: Client, field: str, value: str, words: str) -> None:
    answer = operator.post("/hardware/profiles/new/", PROFILE | {field: value})

    assert answer.status_code == 400
    assert words in " ".join(answer.context["form"].errors[field])
    assert not HardwareProfile.objects.exists()


def test_a_name_that_is_taken_is_refused(operator: Client) -> None:
    factories.make_profile(name="stm32u5")
    answer = operator.post("/hardware/profiles/new/", PROFILE)
    assert "already exists" in str(answer.context["form"].errors["name"])


def test_a_firmware_build_is_made_with_the_class_hash_that_bundles_must_carry(operator: Client) -> None:
    assert operator.post("/hardware/firmware-builds/new/", BUILD).status_code == 302

    build = FirmwareBuild.objects.get()
    assert build.operators == ["CONV_2D", "FULLY_CONNECTED", "SOFTMAX"]
    assert (build.forward_error_correction, build.arena_bytes, build.key_ids) == ("ts004-v2", None, [])
    body = operator.get("/hardware/").content.decode()
    assert build.class_hash in body


def test_a_contract_or_key_that_is_no_hex_is_refused(operator: Client) -> None:
    answer = operator.post("/hardware/firmware-builds/new/", BUILD | {"io_hash": "nonsense", "key_ids": "xyz"})
    assert set(answer.context["form"].errors) == {"io_hash", "key_ids"}
    assert not FirmwareBuild.objects.exists()


def test_an_endpoint_that_knocked_is_registered_from_the_fleet_page(fleet: Fleet, sign_in: SignIn) -> None:
    client, profile = sign_in(Role.OPERATOR), factories.make_profile()
    UnknownEndpoint.objects.all().delete()
    record_unknown_endpoint(
        link="lorawan", endpoint="a84041000181c061", address="ChirpStack field", missing="tag profile is missing.",
        now=timezone.now(),
    )  # fmt: skip
    body = client.get("/").content.decode()
    assert "tag profile is missing." in body
    address = "/nodes/new/?endpoint=a84041000181c061&link=lorawan"
    assert address.replace("&", "&amp;") in body
    assert client.get(address).context["form"]["link"].value() == "lorawan"

    # As it stands on the device's label.
    given = {"endpoint": "A84041000181C061", "link": "lorawan", "profile": profile.pk, "labels": "line=7"}
    answer = client.post(address, given)

    node = Node.objects.get(endpoint="a84041000181c061")
    assert answer.headers["Location"] == f"/nodes/{node.pk}/"
    assert (node.profile, node.labels, node.firmware_build) == (profile, {"line": "7"}, None)
    assert not UnknownEndpoint.objects.exists()


def test_what_is_no_dev_eui_is_refused_at_the_endpoint(operator: Client) -> None:
    profile = factories.make_profile()
    answer = operator.post("/nodes/new/", {"endpoint": "press-1", "link": "lorawan", "profile": profile.pk})
    assert "16 hex digits" in str(answer.context["form"].errors["endpoint"])
    assert not Node.objects.exists()


def test_one_that_was_registered_while_it_spoke_is_no_longer_unknown(fleet: Fleet, sign_in: SignIn) -> None:
    node = fleet.nodes["planned"]
    before = sign_in(Role.VIEWER).get("/").context["overview"].unknown_count
    record_unknown_endpoint(link=node.link, endpoint=node.endpoint, address="", now=timezone.now())
    assert sign_in(Role.VIEWER).get("/").context["overview"].unknown_count == before


def test_all_who_knocked_are_listed_page_by_page_with_what_is_missing(operator: Client) -> None:
    for number in range(60):
        record_unknown_endpoint(
            link="lorawan", endpoint=f"{number:016x}", address="ChirpStack field", missing=f"tag {number} is missing.",
            now=timezone.now(),
        )  # fmt: skip
    seen: list[str] = []
    address = "/nodes/unknown/"
    while address:
        page = operator.get(address).context
        seen += [row.missing for row in page["rows"]]
        address = f"/nodes/unknown/?before={page['before']}" if page["before"] else ""
    assert seen == [f"tag {number} is missing." for number in reversed(range(60))]
    body = operator.get("/nodes/unknown/").content.decode()
    assert "60 endpoints spoke or are known to a ChirpStack" in body
    assert "/nodes/new/?endpoint=000000000000003b&amp;link=lorawan" in body


def test_a_viewer_is_offered_no_form_and_an_empty_fleet_says_what_to_do(db: None, sign_in: SignIn) -> None:
    client = sign_in(Role.VIEWER)
    assert "No node is registered yet." in client.get("/nodes/").content.decode()
    assert "No node matches this filter." in client.get("/nodes/?text=site:a").content.decode()
    body = client.get("/hardware/").content.decode()
    assert "There is no hardware profile and no firmware build yet" in body
    assert "/hardware/profiles/new/" not in body
