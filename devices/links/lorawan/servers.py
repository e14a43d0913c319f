"""Network servers as people keep them: added, changed, removed, and the HTTP integration that their events need."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction

from devices.links.lorawan.checking import others_than
from devices.links.lorawan.chirpstack import TOKEN_PURPOSE, ChirpStack, Integration
from devices.links.lorawan.events import OWN_HEADER, bearer_is_known, hash_of
from devices.links.lorawan.models import NetworkServer
from devices.registration import RegistrationRefused, errors_of
from fleet.audit.models import record
from fleet.sealing import seal

_SECRET_BYTES = 32
SECRET_LEAST = 16
# A set-up that fails half-way leaves integrations with older secrets: they stay good until one succeeds.
SECRETS_MAX = 5
# What the audit log may show.
_OPEN_FIELDS = ("name", "target", "tls", "tenant_id", "region", "event_base_url", "event_encoding")


@transaction.atomic
def add_server(*, actor: str, token: str, event_secret: str = "", **fields: Any) -> NetworkServer:
    """`fields` of NetworkServer; `event_secret` only where a person sets the integration up. Raises RegistrationRefused."""
    server = NetworkServer(**fields)
    _put_secrets(server, token=token, event_secret=event_secret, is_new=True)
    _save(server)
    record(actor=actor, action="network_server.added", subject=server, after=_shown(server))
    return server


@transaction.atomic
def change_server(
    *, server_id: int, actor: str, token: str = "", event_secret: str = "", **fields: Any
) -> NetworkServer:
    """Only what is given changes; an empty token or secret keeps the one that is there. Raises RegistrationRefused."""
    server = NetworkServer.objects.select_for_update().get(pk=server_id)
    before = _shown(server)
    for name, value in fields.items():
        setattr(server, name, value)
    _put_secrets(server, token=token, event_secret=event_secret, is_new=False)
    _save(server)
    after = (
        _shown(server) | ({"token": "changed"} if token else {}) | ({"event_secret": "changed"} if event_secret else {})
    )
    record(actor=actor, action="network_server.changed", subject=server, before=before, after=after)
    return server


@transaction.atomic
def remove_server(*, server_id: int, actor: str) -> None:
    """Its nodes stay registered; the next event from another server tells how they are reached."""
    server = NetworkServer.objects.select_for_update().get(pk=server_id)
    record(actor=actor, action="network_server.removed", subject=server, before=_shown(server))
    server.delete()


def set_up(*, server_id: int, actor: str) -> list[str]:
    """Makes every application post its events here with a new secret; the names of those that do now.

    Where its events go already, they go on going, in the encoding that is wanted there: read here are both.
    The new secret is good before the first application knows it, and the old one until the last one does. Raises
    ChirpStackError; what was done until then stays, and doing it again is harmless.
    """
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    with transaction.atomic():
        server = NetworkServer.objects.select_for_update().get(pk=server_id)
        server.event_secret_hashes = [*server.event_secret_hashes, hash_of(secret)][-SECRETS_MAX:]
        server.save(update_fields=["event_secret_hashes"])
    client, done = ChirpStack(server), []
    for application in client.applications():
        known = client.integration(application.id)
        client.set_integration(application.id, _joined(server, known, secret), exists=known is not None)
        done.append(application.name)
    with transaction.atomic():
        server = NetworkServer.objects.select_for_update().get(pk=server_id)
        if done and server.event_secret_hashes[-1:] == [hash_of(secret)]:
            server.event_secret_hashes = [hash_of(secret)]
            server.save(update_fields=["event_secret_hashes"])
        record(
            actor=actor,
            action="network_server.set_up",
            subject=server,
            after={"applications": done, "events_url": server.events_url},
        )
    return done


def _joined(server: NetworkServer, known: Integration | None, secret: str) -> Integration:
    """The integration with our address first, for ChirpStack posts to one after the other and waits 5 s for each."""
    others = others_than(server, known)
    headers = {} if known is None else dict(known.headers)
    for name, value in list(headers.items()):
        is_our_name = name.lower() == OWN_HEADER.lower()
        is_ours = is_our_name or bearer_is_known(server, value) or not others
        if is_our_name or (name.lower() == "authorization" and is_ours):
            del headers[name]
    # Where others are authorized by the usual header, ours must not take it away from them.
    taken = any(name.lower() == "authorization" for name in headers)
    headers[OWN_HEADER if taken else "Authorization"] = f"Bearer {secret}"
    encoding = known.encoding if known and others else server.event_encoding
    return Integration((server.events_url, *others), encoding, headers)


def _put_secrets(server: NetworkServer, *, token: str, event_secret: str, is_new: bool) -> None:
    wrong = {
        "token": _wrong_token(token, is_new=is_new),
        "event_secret": f"A secret has at least {SECRET_LEAST} characters; leave it empty for one of our own."
        if event_secret and len(event_secret) < SECRET_LEAST
        else "",
    }
    if errors := {field: words for field, words in wrong.items() if words}:
        raise RegistrationRefused(errors_of(ValidationError(errors)))
    if token:
        server.token_sealed = seal(token.encode(), purpose=TOKEN_PURPOSE)
    if event_secret:
        server.event_secret_hashes = [hash_of(event_secret)]


def _wrong_token(token: str, *, is_new: bool) -> str:
    if not token:
        return "Give the API key that ChirpStack shows once, when it is made." if is_new else ""
    sound = token.isascii() and token.isprintable() and " " not in token
    return "" if sound else "An API key has printable ASCII characters without spaces."


def _save(server: NetworkServer) -> None:
    try:
        server.full_clean(exclude=["token_sealed", "event_secret_hashes", "findings", "last_event_at", "checked_at"])
        port = int(server.target.rpartition(":")[2])
        if not 1 <= port <= 65535:
            raise ValidationError({"target": f"Port {port} is none; write host:port with 1..65535."})
        if urlsplit(server.event_base_url).query:
            raise ValidationError({"event_base_url": "Leave out what follows the question mark."})
    except ValidationError as error:
        raise RegistrationRefused(errors_of(error)) from error
    server.save()


def _shown(server: NetworkServer) -> dict[str, Any]:
    return {name: getattr(server, name) for name in _OPEN_FIELDS}
