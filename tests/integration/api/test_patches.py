from __future__ import annotations

from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.api.conftest import Caller


def test_patches_are_listed_newest_first_filtered_and_paged(call: Caller) -> None:
    old = factories.make_version(size=4000)
    new = factories.make_version(family=old.family, size=4000)
    ready = factories.make_patch(old, new)
    failed = factories.make_patch(new, old, state="failed", failure="decodes to other bytes")

    listed = call("viewer", "GET", "/patches").json()
    assert [one["id"] for one in listed] == [failed.pk, ready.pk]
    assert [one["id"] for one in call("viewer", "GET", f"/patches?before={failed.pk}").json()] == [ready.pk]
    assert [one["id"] for one in call("viewer", "GET", "/patches?state=failed").json()] == [failed.pk]
    assert call("viewer", "GET", "/patches?family_id=999999").json() == []
    assert call("viewer", "GET", "/patches?state=bogus").status_code == 422
    assert listed[0]["failure"] == "decodes to other bytes"
    expected = {
        "size": 1000,
        "full_size": 4000,
        "saving": 0.75,
        "base_version": old.name,
        "holding": 0,
        "decoder": "bsdiff",
        "direction": "forward",
        "build_ms": 120,
    }
    assert listed[0]["direction"] == "reverse"
    assert {name: listed[1][name] for name in expected} == expected


def test_an_operator_builds_a_failed_patch_again_and_nobody_else_does(call: Caller) -> None:
    old = factories.make_version()
    patch = factories.make_patch(old, factories.make_version(family=old.family), state="failed", failure="no")
    path = f"/patches/{patch.pk}/build-again"

    assert call(None, "POST", path).status_code == 401
    assert call("viewer", "POST", path).status_code == 403
    assert call("operator", "POST", path).json()["state"] == "waiting"
    again = call("operator", "POST", path)
    assert (again.status_code, "is waiting" in again.json()["detail"]) == (409, True)
    assert call("operator", "POST", "/patches/999999/build-again").status_code == 404
    assert AuditEntry.objects.get(action="patch.build_again").object_id == str(patch.pk)
