from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from fleet.accounts.models import Role
from fleet.audit.models import AuditEntry
from tests import factories
from updates import patch_catalogue
from updates.models import ModelVersion, Patch

SignIn = Callable[[Role], Client]


@pytest.fixture
def versions(db: None) -> list[ModelVersion]:
    first = factories.make_version(size=4000)
    return [first, *(factories.make_version(family=first.family, size=4000) for _ in range(3))]


def test_a_patch_shows_its_saving_who_waits_and_who_can_decode_it(
    versions: list[ModelVersion], sign_in: SignIn
) -> None:
    old, new = versions[:2]
    factories.make_patch(old, new)
    holds = old.images.get().digest
    able, unable = factories.make_firmware(), factories.make_firmware(decoder_profile="none")
    nodes = [
        factories.make_node(active_digest=holds, firmware_build=able),
        factories.make_node(active_digest=holds[:8], firmware_build=able),
        factories.make_node(active_digest=holds, firmware_build=unable),
    ]
    factories.make_campaign(version=new, waves=[[(nodes[0], "offered"), (nodes[1], "planned"), (nodes[2], "failed")]])

    response = sign_in(Role.VIEWER).get("/patches/")

    [row] = response.context["rows"]
    assert (row.size, row.saving) == (1000, 0.75)
    assert (row.holding, row.able, row.waiting) == (3, 2, 2)
    body = response.content.decode()
    assert "2 of 3 nodes have this decoder" in body
    assert "for bsdiff: bsdiff4" in body
    assert "forward" in body
    assert "120 ms" in body


def test_patches_are_filtered_by_state_and_family(versions: list[ModelVersion], sign_in: SignIn) -> None:
    ready = factories.make_patch(versions[0], versions[1])
    failed = factories.make_patch(versions[1], versions[0], state="failed", failure="decodes to other bytes")
    one, other = factories.make_version(), factories.make_version()
    foreign = factories.make_patch(one, other, state="waiting")
    client = sign_in(Role.VIEWER)

    def shown(query: str) -> list[int]:
        return [row.patch.pk for row in client.get(f"/patches/{query}").context["rows"]]

    assert shown("") == [foreign.pk, failed.pk, ready.pk]
    assert shown("?state=failed") == [failed.pk]
    assert shown(f"?family={versions[0].family_id}") == [failed.pk, ready.pk]
    assert shown(f"?family={other.family_id}&state=failed") == []
    assert "It does not filter." in client.get("/patches/?state=bogus").content.decode()


def test_pages_by_key_show_each_patch_once_with_as_many_queries_as_recorded(
    versions: list[ModelVersion], sign_in: SignIn, monkeypatch: Any
) -> None:
    monkeypatch.setattr(patch_catalogue, "PAGE", 5)
    made = [factories.make_patch(a, b, state="waiting").pk for a in versions for b in versions if a != b]
    client = sign_in(Role.VIEWER)

    seen, address = [], "/patches/?state=waiting"
    while address:
        with CaptureQueriesContext(connection) as context:
            page = client.get(address)
        # session, user, families, patches, holders, waiting, states
        assert len(context) == 7
        seen += [row.patch.pk for row in page.context["rows"]]
        before = page.context["next_before"]
        address = f"/patches/?state=waiting&before={before}" if before else ""

    assert seen == sorted(made, reverse=True)


def test_a_failed_patch_says_why_and_is_built_again_under_ones_name(
    versions: list[ModelVersion], sign_in: SignIn
) -> None:
    patch = factories.make_patch(versions[0], versions[1], state="failed", failure="decodes to other bytes", attempts=3)
    client = sign_in(Role.OPERATOR)
    assert "decodes to other bytes" in client.get("/patches/").content.decode()

    client.post(f"/patches/{patch.pk}/build-again/")

    patch.refresh_from_db()
    assert (patch.state, patch.attempts, patch.failure) == ("waiting", 0, "")
    entry = AuditEntry.objects.get()
    assert entry.action == "patch.build_again"
    assert entry.before == {"state": "failed", "attempts": 3, "failure": "decodes to other bytes"}
    assert entry.after == {"state": "waiting", "attempts": 0}


def test_a_patch_that_has_not_failed_is_not_built_again(versions: list[ModelVersion], sign_in: SignIn) -> None:
    patch = factories.make_patch(versions[0], versions[1])

    response = sign_in(Role.OPERATOR).post(f"/patches/{patch.pk}/build-again/", follow=True)

    assert "is ready, so there is nothing to build again" in response.content.decode()
    assert Patch.objects.get().state == "ready"
    assert not AuditEntry.objects.exists()


def test_a_viewer_sees_patches_and_cannot_build_again(versions: list[ModelVersion], sign_in: SignIn) -> None:
    patch = factories.make_patch(versions[0], versions[1], state="failed", failure="no")
    client = sign_in(Role.VIEWER)

    assert "Build again" not in client.get("/patches/").content.decode()
    assert client.post(f"/patches/{patch.pk}/build-again/").status_code == 403
    assert client.get(f"/patches/{patch.pk}/build-again/").status_code == 405
    assert Patch.objects.get().state == "failed"
