"""Rotation of the key that signs manifests: add the next one, bring it to the nodes, activate it, retire the old one.

The database says which key is active, so all processes change over together. Private keys lie in files: the installation's
first one (updates.signer) and `<any name>.pem` in settings.SIGNING_KEY_DIR. Nodes hold two public keys, so two are
registered and not retired at most.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count

from devices.models import KEYS_MAX, FirmwareBuild
from fleet.audit.models import record
from updates.models import SigningKey
from updates.patches.signing import Ed25519Signer, KeyUnusable, Signer, generate_key_file
from updates.signer import installation_signer

_signers: dict[str, Ed25519Signer] = {}


class KeyRefused(Exception):
    """The keys cannot be changed so; the message says why and what to do."""


@dataclass(frozen=True)
class KeyRow:
    """`at_hand`: this process can read the private key. Nodes by what their firmware builds say of their keys."""

    key: SigningKey
    at_hand: bool
    nodes_with: int
    nodes_without: int
    nodes_unknown: int


def active_signer() -> Signer:
    """Of the active key; of the installation's first one where none was registered. Raises KeyUnusable."""
    active = SigningKey.objects.filter(active=True).first()
    return installation_signer() if active is None else _signer(active.key_id)


def _signer(key_id: str) -> Ed25519Signer:
    """By a registered id, kept once read. Raises KeyUnusable."""
    if key_id not in _signers:
        found = {}
        for path in sorted(settings.SIGNING_KEY_DIR.glob("*.pem")):
            signer = Ed25519Signer.from_file(path)
            found[signer.key_id.hex()] = signer
        if key_id not in found:
            first = installation_signer()
            found[first.key_id.hex()] = first
        if key_id not in found:
            raise KeyUnusable(f"signing key {key_id}: not in {settings.SIGNING_KEY_DIR}; put its PEM file there")
        _signers[key_id] = found[key_id]
    return _signers[key_id]


def key_rows() -> list[KeyRow]:
    """Oldest first; two queries for any number of nodes."""
    nodes = FirmwareBuild.objects.annotate(nodes_number=Count("nodes")).values_list("key_ids", "nodes_number")
    builds = list(nodes)
    rows = []
    for key in SigningKey.objects.all():
        try:
            at_hand = bool(_signer(key.key_id))
        except KeyUnusable:
            at_hand = False
        knows = sum(number for key_ids, number in builds if key.key_id in key_ids)
        lacks = sum(number for key_ids, number in builds if key_ids and key.key_id not in key_ids)
        unknown = sum(number for key_ids, number in builds if not key_ids)
        rows.append(KeyRow(key, at_hand, knows, lacks, unknown))
    return rows


@transaction.atomic
def add_key(*, actor: str, now: datetime) -> SigningKey:
    """Makes the next key; it signs nothing before it is activated. Raises KeyRefused where two are in use."""
    _lock()
    if not SigningKey.objects.exists():
        _register(installation_signer(), actor=actor, now=now, active=True)
    in_use = SigningKey.objects.filter(retired_at__isnull=True)
    if in_use.count() >= KEYS_MAX:
        ids = " and ".join(in_use.values_list("key_id", flat=True))
        raise KeyRefused(f"{ids} are in use, and a node holds {KEYS_MAX} keys: retire one first.")
    settings.SIGNING_KEY_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    signer = generate_key_file(settings.SIGNING_KEY_DIR / f"{now:%Y%m%d}-{secrets.token_hex(4)}.pem")
    return _register(signer, actor=actor, now=now, active=False)


@transaction.atomic
def activate_key(*, key_id: str, actor: str, even_if_unknown: bool = False) -> SigningKey:
    """From the next bundle on it signs. Raises KeyRefused where its private key is not at hand, and where nodes' firmware
    does not have it, unless `even_if_unknown`."""
    _lock()
    key = _known(key_id)
    if key.retired_at is not None:
        raise KeyRefused(f"{key_id} is retired: add a new key.")
    try:
        _signer(key_id)
    except KeyUnusable as error:
        raise KeyRefused(str(error)) from error
    [row] = [row for row in key_rows() if row.key.pk == key.pk]
    if (lacking := row.nodes_without + row.nodes_unknown) and not even_if_unknown:
        raise KeyRefused(
            f"{lacking} nodes would refuse its manifests, or their firmware builds do not say which keys they have "
            f"({row.nodes_without} and {row.nodes_unknown}): update their firmware, or give the builds their key_ids."
        )
    before = SigningKey.objects.filter(active=True).values_list("key_id", flat=True).first()
    SigningKey.objects.filter(active=True).update(active=False)
    SigningKey.objects.filter(pk=key.pk).update(active=True)
    record(actor=actor, action="signing_key.activate", subject=key, before={"active": before}, after={"active": key_id})
    key.refresh_from_db()
    return key


@transaction.atomic
def retire_key(*, key_id: str, actor: str, now: datetime) -> SigningKey:
    """Never to sign again. Raises KeyRefused for the active one."""
    _lock()
    key = _known(key_id)
    if key.active:
        raise KeyRefused(f"{key_id} is active: activate another key first.")
    if key.retired_at is None:
        key.retired_at = now
        key.save(update_fields=["retired_at"])
        record(actor=actor, action="signing_key.retire", subject=key, after={"retired_at": now.isoformat()})
    return key


def _register(signer: Ed25519Signer, *, actor: str, now: datetime, active: bool) -> SigningKey:
    key = SigningKey.objects.create(
        key_id=signer.key_id.hex(), public_key=signer.public_key.hex(), active=active, added_at=now
    )
    after = {"public_key": key.public_key, "active": active}
    record(actor=actor, action="signing_key.add", subject=key, after=after)
    return key


def _known(key_id: str) -> SigningKey:
    key = SigningKey.objects.filter(key_id=key_id).first()
    if key is None:
        raise KeyRefused(f"{key_id} is no registered key: `signing_key list` shows them.")
    return key


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE updates_signingkey IN SHARE ROW EXCLUSIVE MODE")
