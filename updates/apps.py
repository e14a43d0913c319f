from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import transaction
from django.db.models.signals import post_save


class UpdatesConfig(AppConfig):
    name = "updates"

    def ready(self) -> None:
        from devices.models import HardwareProfile

        post_save.connect(_refit, sender=HardwareProfile, dispatch_uid="updates.refit")


def _refit(instance: Any, raw: bool = False, **kwargs: object) -> None:
    """Profiles are made and changed below this app, which must not be known there."""
    from updates.fits import refit

    if not raw:
        transaction.on_commit(lambda: refit(instance))
