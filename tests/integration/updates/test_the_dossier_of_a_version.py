"""The dossier holds all evidence of a version, and its signature tells when a word of it was changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from fleet.accounts.models import Role
from fleet.audit.models import record
from tests import factories
from tests.integration.api.conftest import Caller, call  # noqa: F401 - a fixture
from tests.integration.frontend.conftest import sign_in  # noqa: F401 - a fixture
from updates.dossier import dossier, signed_dossier
from updates.models import Campaign, ModelVersion

pytestmark = pytest.mark.django_db
SignIn = Callable[[Role], Client]


def shipped_version() -> ModelVersion:
    profile = factories.make_profile(name="stm32l4")
    version = factories.make_version(profiles=[profile], tools={"onnx": "1.23.2"})
    node = factories.make_node(profile=profile, active_digest=version.images.get().digest)
    campaign = factories.make_campaign(version=version, waves=[[(node, "confirmed")]])
    Campaign.objects.filter(pk=campaign.pk).update(approved_by="olga")
    record(actor="ci", action="version.uploaded", subject=version, after={"digest": version.digest})
    return version


def test_it_says_what_went_in_what_came_out_who_approved_and_who_runs_it() -> None:
    version = shipped_version()
    image = version.images.get()

    found = dossier(version.pk, now=factories.NOW)

    assert found["made_at"] == "2026-11-23T12:00:00+00:00"
    assert found["inputs"]["onnx"]["sha256"] == version.onnx_id
    assert found["tools"] == {"onnx": "1.23.2"}
    assert [(one["digest"], one["bytes"]) for one in found["images"]] == [(image.digest, image.size)]
    assert [(one["profile"], one["fits"], one["arena_limit_bytes"]) for one in found["fits"]] == [
        ("stm32l4", True, 63_078)
    ]
    assert found["limits"]["minimum_samples"] == 100
    assert found["validation"][0]["slices"][0]["name"] == "clean"
    assert [(one["approved_by"], one["nodes"]) for one in found["campaigns"]] == [("olga", {"confirmed": 1})]
    assert found["nodes"] == {image.digest: 1}
    assert [(one["actor"], one["action"]) for one in found["history"]] == [("ci", "version.uploaded")]


def test_the_command_prints_a_genuine_one_and_refuses_one_that_was_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = shipped_version()
    signed = signed_dossier(version.pk, now=factories.NOW)
    genuine, forged = tmp_path / "genuine.json", tmp_path / "forged.json"
    genuine.write_text(json.dumps(signed))
    payload = base64.urlsafe_b64decode(signed["payload"] + "==").replace(b'"olga"', b'"eve0"')
    forged.write_text(json.dumps({**signed, "payload": base64.urlsafe_b64encode(payload).rstrip(b"=").decode()}))

    call_command("verify_dossier", str(genuine))

    assert json.loads(capsys.readouterr().out)["version"]["name"] == version.name
    with pytest.raises(CommandError, match="not genuine: the signature is not that of these bytes") as refused:
        call_command("verify_dossier", str(forged))
    assert refused.value.returncode == 1
    with pytest.raises(CommandError, match="No such file"):
        call_command("verify_dossier", str(tmp_path / "nothing.json"))


def test_the_api_and_the_page_give_the_same(call: Caller, sign_in: SignIn) -> None:  # noqa: F811
    version = shipped_version()
    client = sign_in(Role.VIEWER)

    answer = call(Role.VIEWER, "GET", f"/versions/{version.pk}/dossier")
    page = client.get(reverse("version-dossier", args=[version.pk]))
    file = client.get(reverse("version-dossier-file", args=[version.pk]))

    for signed in (answer.json(), file.json()):
        document = json.loads(base64.urlsafe_b64decode(signed["payload"] + "=="))
        assert {**document, "made_at": ""} == {**page.context["document"], "made_at": ""}
    assert file["Content-Disposition"] == f'attachment; filename="dossier-{version.pk}.json"'
    body = page.content.decode()
    assert version.images.get().digest in body
    assert "olga" in body


def test_there_is_none_of_a_version_that_is_not_there(call: Caller) -> None:  # noqa: F811
    assert call(Role.VIEWER, "GET", "/versions/999/dossier").status_code == 404
