"""The signer of this installation: from the environment, else from a file that is made on first run."""

from __future__ import annotations

import os
from functools import lru_cache

from django.conf import settings

from updates.patches.signing import ENVIRONMENT_VARIABLE, Ed25519Signer, generate_key_file


@lru_cache(maxsize=1)
def installation_signer() -> Ed25519Signer:
    """Raises updates.patches.signing.KeyUnusable with what to mend."""
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Ed25519Signer.from_environment(os.environ)
    if settings.SIGNING_KEY_FILE.exists():  # perhaps in a directory that we may only read, such as /run/secrets
        return Ed25519Signer.from_file(settings.SIGNING_KEY_FILE)
    settings.SIGNING_KEY_FILE.parent.mkdir(parents=True, exist_ok=True)
    return generate_key_file(settings.SIGNING_KEY_FILE)
