"""What a restored database needs before anything starts on it."""

from __future__ import annotations

from cryptography.fernet import InvalidToken
from django.db import connection

from devices.models import OfferedBundle
from fleet.sealing import unseal
from updates.campaigns.plan import REVERT_PURPOSE
from updates.models import Campaign, SigningKey
from updates.patches.bundle import unpack_bundle
from updates.patches.manifest import read_envelope
from updates.patches.signing import KeyUnusable
from updates.signing_keys import active_signer

# More campaigns than anyone starts between two backups; sequences have 32 bits.
SEQUENCE_GAP = 10_000


def skip_sequences() -> int:
    """The next manifest sequence, raised beyond any that was drawn after the backup: nodes refuse a lower one for ever."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval('updates_assignment_sequence', nextval('updates_assignment_sequence') + %s)", [SEQUENCE_GAP]
        )
        return int(cursor.fetchone()[0]) + 1


def key_findings() -> list[str]:
    """What the two keys that lie outside the database cannot do with it, a sentence each; none where both are right."""
    findings = []
    campaign = Campaign.objects.order_by("-id").first()
    if campaign is not None:
        try:
            unseal(bytes(campaign.revert_preimage_sealed), purpose=REVERT_PURPOSE)
        except InvalidToken:
            findings.append(
                "SECRET_KEY is not the one that sealed this database: revert secrets cannot be read. "
                "Set the SECRET_KEY of the backup, or put its var/secret-key in place."
            )
    offered = OfferedBundle.objects.select_related("blob").order_by("-id").first()
    if offered is not None:
        known = read_envelope(unpack_bundle(bytes(offered.blob.data)).manifest).key_id
        try:
            mine = active_signer().key_id
        except KeyUnusable as error:
            findings.append(f"The signing key cannot be used: {error}.")
        else:
            # After a rotation the newest offer may be signed by the key before.
            registered = SigningKey.objects.filter(key_id=known.hex(), retired_at__isnull=True)
            if mine != known and not registered.exists():
                findings.append(
                    f"The signing key has the id {mine.hex()}, the newest manifest was signed by {known.hex()}: nodes "
                    "would refuse every update. Put the signing key of the backup in place."
                )
    return findings
