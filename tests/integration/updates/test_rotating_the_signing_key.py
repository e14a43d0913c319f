"""The next key is made, brought to the nodes and activated, and the old one retired, without an update refused."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from pytest_django import Settings

from devices.agent.build import build
from devices.models import Node
from fleet.audit.models import AuditEntry
from tests import factories
from updates.models import SigningKey
from updates.patches.manifest import KeyUnknown, Manifest, decode_manifest, sign_manifest
from updates.patches.signing import Signer, TrustedKeys
from updates.signer import installation_signer
from updates.signing_keys import KeyRefused, activate_key, active_signer, add_key, key_rows, retire_key

build()
from devices.agent.native import Agent, Flash  # noqa: E402  (only there once compiled)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CLASS = b"clas"


@pytest.fixture(autouse=True)
def keys(db: None, tmp_path: Path, settings: Settings) -> None:
    settings.SIGNING_KEY_DIR = tmp_path / "signing-keys"


def signed(signer: Signer) -> bytes:
    return sign_manifest(Manifest(b"mod1", b"", b"t" * 32, 100, 1, CLASS, 0, b"selftest", b"r" * 16), signer)


def told(*words: str) -> str:
    out = StringIO()
    call_command("signing_key", *words, stdout=out)
    return out.getvalue()


def test_without_a_rotation_the_installations_key_signs() -> None:
    assert active_signer().key_id == installation_signer().key_id
    assert "never rotated" in told("list")


def test_a_new_key_signs_nothing_before_it_is_activated() -> None:
    key = add_key(actor="ana", now=NOW)
    assert active_signer().key_id == installation_signer().key_id
    activate_key(key_id=key.key_id, actor="ana")
    assert active_signer().key_id.hex() == key.key_id


def test_a_node_with_both_keys_takes_manifests_of_either_and_of_no_third(tmp_path: Path) -> None:
    key = add_key(actor="ana", now=NOW)
    before = active_signer()
    activate_key(key_id=key.key_id, actor="ana")
    after = active_signer()
    public = [bytes.fromhex(one.public_key) for one in SigningKey.objects.all()]

    def verdict(signer: Signer, known: list[bytes]) -> str:
        flash = Flash(4096)
        return str(Agent(flash, class_hash=CLASS, public_keys=known, factory_size=10).begin(signed(signer)))

    assert [verdict(signer, public) for signer in (before, after)] == ["none", "none"]
    assert [verdict(signer, public[:1]) for signer in (before, after)] == ["none", "unknown-key"]
    assert decode_manifest(signed(after), TrustedKeys(public)).sequence == 1
    with pytest.raises(KeyUnknown):
        decode_manifest(signed(after), TrustedKeys(public[:1]))


def test_a_key_that_nodes_may_lack_is_activated_only_when_one_says_so() -> None:
    key = add_key(actor="ana", now=NOW)
    first = installation_signer().key_id.hex()
    silent = factories.make_firmware()
    factories.make_node(firmware_build=silent)
    factories.make_node(firmware_build=factories.make_firmware(key_ids=[first]))
    factories.make_node(firmware_build=factories.make_firmware(key_ids=[first, key.key_id]))
    row = next(row for row in key_rows() if row.key == key)
    assert (row.at_hand, row.nodes_with, row.nodes_without, row.nodes_unknown) == (True, 1, 1, 1)
    with pytest.raises(KeyRefused, match="2 nodes would refuse"):
        activate_key(key_id=key.key_id, actor="ana")
    assert activate_key(key_id=key.key_id, actor="ana", even_if_unknown=True).active
    Node.objects.all().delete()


def test_a_node_holds_two_keys_so_a_third_is_refused_until_one_is_retired() -> None:
    key = add_key(actor="ana", now=NOW)
    with pytest.raises(KeyRefused, match="retire one first"):
        add_key(actor="ana", now=NOW)
    activate_key(key_id=key.key_id, actor="ana")
    retire_key(key_id=installation_signer().key_id.hex(), actor="ana", now=NOW)
    assert add_key(actor="ana", now=NOW).key_id != key.key_id


def test_the_active_key_cannot_be_retired_and_a_retired_one_not_activated() -> None:
    key = add_key(actor="ana", now=NOW)
    with pytest.raises(KeyRefused, match="is active"):
        retire_key(key_id=installation_signer().key_id.hex(), actor="ana", now=NOW)
    retire_key(key_id=key.key_id, actor="ana", now=NOW)
    with pytest.raises(KeyRefused, match="is retired"):
        activate_key(key_id=key.key_id, actor="ana")


def test_a_key_whose_private_half_is_not_at_hand_is_not_activated() -> None:
    key = SigningKey.objects.create(key_id="00112233", public_key="00" * 32, added_at=NOW)
    with pytest.raises(KeyRefused, match="put its PEM file there"):
        activate_key(key_id=key.key_id, actor="ana")
    assert "NO private key here" in told("list")


def test_the_command_rotates_and_each_step_is_audited_without_a_secret(settings: Settings) -> None:
    first = installation_signer().key_id.hex()
    new = told("add").split()[0]
    told("activate", new)
    told("retire", first)
    listed = told("list").splitlines()
    assert [(line.split()[0], line.split()[1]) for line in listed] == [(first, "retired"), (new, "active")]
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions == ["signing_key.add", "signing_key.add", "signing_key.activate", "signing_key.retire"]
    [file] = settings.SIGNING_KEY_DIR.glob("*.pem")
    assert file.stat().st_mode & 0o777 == 0o600
    secret = "".join(file.read_text().splitlines()[1:-1])
    assert secret not in str(list(AuditEntry.objects.values_list("before", "after")))
    with pytest.raises(CommandError, match="no registered key"):
        told("activate", "ffffffff")


def test_the_database_lets_one_key_be_active_and_no_retired_one() -> None:
    add_key(actor="ana", now=NOW)
    with pytest.raises(IntegrityError), transaction.atomic():
        SigningKey.objects.update(active=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        SigningKey.objects.filter(active=True).update(retired_at=NOW)
