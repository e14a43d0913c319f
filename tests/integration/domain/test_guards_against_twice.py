"""What may exist once exists once, also when two connections make it at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError
from django.db.models import UniqueConstraint

from devices.models import Offering, UnknownEndpoint
from fleet.blobs.models import Blob, store
from tests.integration.domain import factories as make
from tests.integration.domain.race import race
from updates.models import FieldEvidence, Fit, ModelVersion, NodeUpdate, Tally

pytestmark = pytest.mark.django_db(transaction=True)

Attempt = Callable[[], object]


def twice(create: Callable[..., object], **values: Any) -> tuple[Attempt, Attempt]:
    return (lambda: create(**values)), (lambda: create(**values))


def open_updates_of_one_node() -> tuple[Attempt, Attempt]:
    """Two campaigns want the same node: each moves its own planned row to offered."""
    node = make.node()
    rows = [make.node_update(node=node).pk, make.node_update(node=node).pk]
    first, second = (
        lambda pk=pk: NodeUpdate.objects.filter(pk=pk, state="planned").update(state="offered") for pk in rows
    )
    return first, second


def unknown_endpoint() -> object:
    return UnknownEndpoint.objects.create(
        link="nbiot", endpoint="stranger", first_seen_at=make.NOW, last_seen_at=make.NOW
    )


def field_evidence(**fields: Any) -> FieldEvidence:
    numbers = dict.fromkeys(("nodes", "arena_nodes", "p99_nodes", "inferences", "deadline_misses", "missing_nodes"), 0)
    return FieldEvidence.objects.create(**numbers, changed_at=datetime(2026, 11, 23, tzinfo=UTC), **fields)


# Each entry builds what both attempts share, and returns the two.
NAMED: dict[str, Callable[[], tuple[Attempt, Attempt]]] = {
    "node_once_a_campaign": lambda: twice(make.node_update, wave=make.wave(), node=make.node()),
    "one_open_update_a_node": open_updates_of_one_node,
    "version_name_once_a_family": lambda: twice(make.version, family=make.family(), name="1.0"),
    "image_once_a_target_class": lambda: twice(make.image, version=make.version()),
    "fit_once": lambda: twice(Fit.objects.create, profile=make.profile(), image=make.image(), fits=True, numbers={}),
    "field_evidence_once": lambda: twice(field_evidence, image=make.image(), profile=make.profile()),
    "patch_once_a_pair_and_decoder": lambda: twice(make.patch, base=make.image(), target=make.image()),
    "one_live_rollback_a_campaign": lambda: twice(make.rollback, of=make.campaign()),
    "wave_index_once": lambda: twice(make.wave, campaign=make.campaign(), index=0),
    "tally_once": lambda: twice(Tally.objects.create, wave=make.wave(), state="planned"),
    "delivery_open_once": lambda: twice(make.delivery, node=make.node(), reference=7),
    "one_bundle_a_base": lambda: twice(make.offered_bundle, offering=Offering.objects.create(), base_digest=""),
    "unknown_endpoint_once": lambda: twice(unknown_endpoint),
    "one_active_signing_key": lambda: twice(make.signing_key, active=True),
    "saved_view_name_once_an_owner": lambda: twice(make.saved_view, owner=make.user(), name="mine"),
    "network_event_once": lambda: twice(make.network_event, server=make.network_server(), node=make.node(), key="up:1"),
}
FIELDS: dict[str, Callable[[], tuple[Attempt, Attempt]]] = {
    "devices.Node.endpoint": lambda: twice(make.node, profile=make.profile(), endpoint="urn:node:1"),
    "devices.NetworkServer.name": lambda: twice(make.network_server, name="plant"),
    "devices.HardwareProfile.name": lambda: twice(make.profile, name="stm32l4"),
    "devices.FirmwareBuild.name": lambda: twice(make.firmware_build, name="agent-1"),
    "devices.Delivery.token": lambda: twice(make.delivery, node=make.node(), token="guess-me-not"),
    "devices.KnownImage.prefix": lambda: (
        lambda: make.known_image(digest="deadbeef" + 56 * "0"),
        lambda: make.known_image(digest="deadbeef" + 56 * "1"),
    ),
    "updates.SigningKey.key_id": lambda: twice(make.signing_key, key_id="00000001"),
    "updates.ModelFamily.name": lambda: twice(make.family, name="gestures"),
    "updates.ModelFamily.model_id": lambda: twice(make.family, model_id="00000001"),
    "updates.ModelVersion.digest": lambda: twice(make.version, digest=64 * "a"),
    "updates.ModelImage.known": lambda: twice(make.image, known=make.known_image()),
    "updates.Campaign.sequence": lambda: twice(make.campaign, version=make.version(), sequence=1_000_000),
    "updates.Campaign.idempotency_key": lambda: twice(make.campaign, version=make.version(), idempotency_key="ci-1"),
}
# A one-to-one link is unique by its nature; nobody makes two reports of one image but in one transaction.
ONE_TO_ONE = {"updates.ValidationReport.image"}


@pytest.mark.parametrize("guard", NAMED)
def test_of_two_at_once_the_second_is_refused(guard: str) -> None:
    outcome = race(*NAMED[guard]())
    assert isinstance(outcome.error, IntegrityError)
    assert guard in str(outcome.error)
    assert outcome.waited


@pytest.mark.parametrize("field", FIELDS)
def test_of_two_with_the_same_value_at_once_the_second_is_refused(field: str) -> None:
    outcome = race(*FIELDS[field]())
    assert isinstance(outcome.error, IntegrityError)
    app, name, field_name = field.split(".")
    model = apps.get_model(app, name)
    column = model._meta.get_field(field_name).column
    assert f"Key ({column})=" in str(outcome.error)
    assert outcome.waited


def test_each_unique_guard_of_the_models_is_tried_here() -> None:
    models = [*apps.get_app_config("devices").get_models(), *apps.get_app_config("updates").get_models()]
    named = {c.name for model in models for c in model._meta.constraints if isinstance(c, UniqueConstraint)}
    fields = {
        f"{field.model._meta.app_label}.{field.model.__name__}.{field.name}"
        for model in models
        for field in model._meta.get_fields()
        if getattr(field, "unique", False) and not getattr(field, "primary_key", True)
    }
    assert (named, fields - ONE_TO_ONE) == (set(NAMED), set(FIELDS))


def test_a_version_uploaded_twice_at_once_is_stored_once() -> None:
    family, data = make.family(), make.blob()
    upload = {
        "family": family,
        "name": "1.0",
        "digest": 64 * "b",
        "onnx": data,
        "calibration": data,
        "evaluation": data,
    }
    outcome = race(
        lambda: ModelVersion.objects.get_or_create(digest=upload["digest"], defaults=upload),
        lambda: ModelVersion.objects.get_or_create(digest=upload["digest"], defaults=upload),
    )
    assert outcome.error is None
    assert outcome.waited
    version, created = outcome.result
    assert (ModelVersion.objects.get(), created) == (version, False)


def test_bytes_stored_twice_at_once_are_stored_once() -> None:
    outcome = race(lambda: store(b"model"), lambda: store(b"model"))
    assert outcome.error is None
    assert outcome.result == Blob.objects.get()


@pytest.mark.parametrize("end", ["delivered", "failed", "cancelled"])
def test_a_delivery_that_has_ended_makes_room_for_the_next(end: str) -> None:
    make.delivery(reference=7, state=end)
    assert make.delivery(reference=7).state == "waiting"


def test_a_node_whose_update_has_ended_can_be_offered_the_next() -> None:
    node = make.node()
    make.node_update(node=node, state="failed", cause="signature")
    assert make.node_update(node=node, state="offered").pk


def test_a_finished_rollback_makes_room_for_another() -> None:
    campaign = make.campaign()
    make.rollback(campaign, state="finished")
    assert make.rollback(campaign).pk
