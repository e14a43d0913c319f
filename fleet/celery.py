"""The Celery application. Messages are wake-ups: any may be lost, doubled or late without harm."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fleet.settings")

app = Celery("fleet")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@app.on_after_finalize.connect
def wake_workers(sender: Celery, **kwargs: object) -> None:
    """Beat wakes each worker to look at PostgreSQL; what is due is decided there."""
    from django.conf import settings

    for name in (
        "updates.tasks.tick_campaigns",
        "updates.tasks.drain_link_events",
        "updates.tasks.build_due",
        "updates.tasks.build_patches_due",
        "devices.tasks.feed_lorawan",
    ):
        # A wake-up that waited behind a long build says nothing that a newer one does not say.
        sender.add_periodic_task(settings.TICK_SECONDS, sender.signature(name), name=name, expires=10)
    sender.add_periodic_task(600, sender.signature("updates.tasks.gather_field_evidence"), name="field-evidence")
    sender.add_periodic_task(3600, sender.signature("devices.tasks.keep_partitions"), name="keep-partitions")
    sender.add_periodic_task(6 * 3600, sender.signature("updates.tasks.reconcile_books"), name="reconcile-books")
    sender.add_periodic_task(3600, sender.signature("updates.tasks.collect_patches"), name="collect-patches")
    sender.add_periodic_task(3600, sender.signature("fleet.accounts.tasks.tidy_accounts"), name="tidy-accounts")


@signals.setup_logging.connect
def log_as_the_web_does(**kwargs: object) -> None:
    """Celery would put a format of its own on the root logger; this keeps Django's."""
    from logging.config import dictConfig

    from django.conf import settings

    dictConfig(settings.LOGGING)


@signals.import_modules.connect
def give_workers_a_heart(sender: Celery, **kwargs: object) -> None:
    """After django.setup(), which Celery's own receiver does first."""
    from fleet.operations.worker import HeartStep

    app.steps["consumer"].add(HeartStep)
