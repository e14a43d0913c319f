"""How an image lies in the arena of a profile, from its bytes and from what is known of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client
from django.urls import reverse

from devices.models import HardwareProfile
from fleet.accounts.models import Role
from fleet.blobs.models import store
from tests import factories
from tests.integration.devices.tiny_model import tiny_model
from updates.models import FieldEvidence, ModelImage

SignIn = Callable[[Role], Client]
pytestmark = pytest.mark.django_db


def image_on(profile: HardwareProfile, data: bytes, **fields: object) -> ModelImage:
    version = factories.make_version(profiles=[profile])
    image = version.images.get()
    ModelImage.objects.filter(pk=image.pk).update(blob=store(data), size=len(data), **fields)
    image.refresh_from_db()
    return image


def address(image: ModelImage, profile: HardwareProfile) -> str:
    path = reverse("version-memory", args=[image.version_id])
    return f"{path}?image={image.digest}&profile={profile.name}"


def test_the_map_has_a_row_for_every_tensor_and_says_which_evidence_decides(sign_in: SignIn) -> None:
    profile = factories.make_profile()
    facts = {"arena_estimates": {"cmsis-nn": 1200, "reference": 1100}}
    image = image_on(profile, tiny_model(1), arena_bytes=1500, facts=facts)

    page = sign_in(Role.VIEWER).get(address(image, profile))

    drawn = page.context["map"]
    assert [row.placement.name for row in drawn.rows] == ["tensor (1, 64)", "tensor (1, 48)"]
    assert drawn.needed_bytes == 1500
    assert dict(page.context["evidence"])["planned for a 32-bit core, with the scratch of its kernel library"] == 1200
    assert "fits the arena" in page.content.decode()


def test_what_a_node_reported_is_on_the_ladder_and_decides_where_it_is_the_most(sign_in: SignIn) -> None:
    profile = factories.make_profile()
    image = image_on(profile, tiny_model(1), arena_bytes=1500)
    counts = {"nodes": 2, "arena_nodes": 2, "p99_nodes": 0, "inferences": 9, "deadline_misses": 0, "missing_nodes": 0}
    FieldEvidence.objects.create(image=image, profile=profile, arena_bytes=1700, changed_at=factories.NOW, **counts)

    page = sign_in(Role.VIEWER).get(address(image, profile))

    assert page.context["map"].needed_bytes == 1700
    assert dict(page.context["evidence"])["what a node reported that it uses"] == 1700


def test_a_profile_without_enough_memory_is_told_by_how_much(sign_in: SignIn) -> None:
    profile = factories.make_profile(sram_bytes=8192, reserved_sram_bytes=6144)
    image = image_on(profile, tiny_model(1), arena_bytes=1600)

    body = sign_in(Role.VIEWER).get(address(image, profile)).content.decode()

    # 70 % of 2,048 B are 1,433 B.
    assert "does not fit the arena" in body
    assert "it needs 1.6 KiB of arena, 1.4 KiB are allowed" in body


def test_an_image_that_nothing_can_be_planned_for_says_why(sign_in: SignIn) -> None:
    profile = factories.make_profile()
    client = sign_in(Role.VIEWER)

    compiled = client.get(address(image_on(profile, b"weights", runtime="stm32cubeai"), profile)).content.decode()
    broken = client.get(address(image_on(profile, b"no flatbuffer"), profile)).content.decode()

    assert "stm32cubeai compiles its memory layout" in compiled
    assert "cannot be read as a .tflite file" in broken


def test_an_image_of_another_version_or_an_unknown_profile_is_not_found(sign_in: SignIn) -> None:
    profile = factories.make_profile()
    image, other = image_on(profile, tiny_model(1)), factories.make_version()
    client = sign_in(Role.VIEWER)

    assert client.get(address(image, profile).replace(f"/{image.version_id}/", f"/{other.pk}/")).status_code == 404
    assert client.get(address(image, profile) + "x").status_code == 404


def test_without_a_choice_the_profile_that_does_not_fit_is_shown(sign_in: SignIn) -> None:
    roomy, tight = factories.make_profile(), factories.make_profile(sram_bytes=8192, reserved_sram_bytes=6144)
    image = image_on(roomy, tiny_model(1), arena_bytes=1600)
    factories.make_fit(image, tight)

    page = sign_in(Role.VIEWER).get(reverse("version-memory", args=[image.version_id]))

    assert page.context["profile"] == tight


def test_the_fit_matrix_leads_to_the_map(sign_in: SignIn) -> None:
    profile = factories.make_profile()
    image = image_on(profile, tiny_model(1))
    client = sign_in(Role.VIEWER)

    body = client.get(reverse("version", args=[image.version_id])).content.decode()

    assert address(image, profile).replace("&", "&amp;") in body
