"""One request can be followed through the log into the task that it woke; no secret gets there."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.db import transaction
from django.test import Client
from redis import Redis

from fleet.accounts.models import Role, User
from fleet.accounts.services import issue_token
from fleet.operations.wakeups import wake
from tests import factories

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0
pytestmark = pytest.mark.django_db


class Lines(io.StringIO):
    def parsed(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What the product's own handler writes, as it writes it."""
    stream = Lines()
    handler = next(one for one in logging.getLogger().handlers if type(one) is logging.StreamHandler)
    old = handler.setStream(stream)
    yield stream
    if old is not None:
        handler.setStream(old)


def test_a_well_formed_id_is_kept_and_anything_else_gets_a_new_one(client: Client) -> None:
    assert client.get("/login/", headers={"X-Request-ID": "ci-run.2026_11"})["X-Request-ID"] == "ci-run.2026_11"
    for bad in ("short", "has space in it", "x" * 65, 'quote"quote"', "line\nbreak-line"):
        answered = client.get("/login/", headers={"X-Request-ID": bad})["X-Request-ID"]
        assert answered != bad
        assert len(answered) == 16


def test_the_line_of_a_request_names_user_campaign_and_view(client: Client, lines: Lines) -> None:
    user = factories.make_user(Role.VIEWER)
    campaign = factories.make_campaign(version=factories.make_version(), waves=[])
    client.force_login(user)
    client.get(f"/campaigns/{campaign.pk}/", headers={"X-Request-ID": "follow-me-1"})
    line = next(line for line in lines.parsed() if line["event"] == "request")
    assert (line["request_id"], line["user_id"], line["campaign_id"]) == ("follow-me-1", user.pk, campaign.pk)
    assert (line["view"], line["status"], line["level"]) == ("campaign", 200, "info")
    assert structlog.contextvars.get_contextvars() == {}


def test_a_line_of_a_library_names_the_request_too(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="follow-me-2"):
        logging.getLogger("some.library").warning("it happened")
    assert lines.parsed()[0]["request_id"] == "follow-me-2"


def test_neither_a_password_nor_a_token_gets_into_the_log(client: Client, lines: Lines) -> None:
    password, user = "correct horse battery", User.objects.create(username="olga", role=Role.OPERATOR)
    user.set_password(password)
    user.save()
    _, token = issue_token(user=user, name="ci", role=Role.OPERATOR, actor="test")
    client.post("/login/", {"username": "olga", "password": password})
    client.post("/login/", {"username": "olga", "password": "wrong horse"})
    client.get("/api/v1/nodes", headers={"Authorization": f"Bearer {token}"})
    log = structlog.get_logger("test")
    log.info("called", authorization=f"Bearer {token}", detail={"password": password, "tries": 3})
    log.warning(f"GET with Authorization: Bearer {token} to postgresql://modelfleet:{token}@db/x?password={token}")
    try:
        raise ValueError(f"token={token}")
    except ValueError:
        log.exception("failed")
    text = lines.getvalue()
    assert len(lines.parsed()) >= 6
    assert password not in text
    assert token not in text
    assert '"tries": 3' in text


@pytest.mark.django_db(transaction=True)
def test_a_request_is_followed_into_the_line_of_the_task_that_it_woke(tmp_path: Path) -> None:
    # A queue of its own, so that no other test's worker takes the message.
    command = [
        str(ROOT / ".venv/bin/celery"),
        "-A",
        "fleet",
        "worker",
        "-Q",
        "followed",
        "-c",
        "1",
        "-n",
        "followed@%h",
    ]
    environment = os.environ | {
        "DATABASE_URL": os.environ["DATABASE_URL"],
        "MODELFLEET_VAR": str(tmp_path),
        "SECRET_KEY": "followed",
    }
    from fleet.celery import app

    log = tmp_path / "log"
    with log.open("wb") as output, Redis.from_url(os.environ["REDIS_URL"]) as broker:
        broker.delete("followed")
        with structlog.contextvars.bound_contextvars(request_id="follow-me-3"):
            app.send_task("devices.tasks.keep_partitions", queue="followed")
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while "task.ended" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                assert worker.poll() is None, log.read_text()
        finally:
            worker.terminate()
            worker.wait(PATIENCE_S)
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    followed = [line for line in found if line.get("request_id") == "follow-me-3"]
    assert [line["event"] for line in followed if line["logger"] == "fleet.operations.wakeups"] == [
        "task.began",
        "task.ended",
    ]
    assert {line["task"] for line in followed} == {"devices.tasks.keep_partitions"}


@pytest.mark.django_db(transaction=True)
def test_a_wake_up_leaves_on_commit_and_a_broker_that_is_away_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.celery import app

    sent: list[str] = []
    monkeypatch.setattr(app, "send_task", lambda name, **options: sent.append(name))
    with transaction.atomic():
        wake("updates.tasks.tick_campaigns")
        assert sent == []
    assert sent == ["updates.tasks.tick_campaigns"]

    def away(name: str, **options: object) -> None:
        raise OSError("no broker")

    monkeypatch.setattr(app, "send_task", away)
    with transaction.atomic():
        wake("updates.tasks.tick_campaigns")
        User.objects.create(username="stored")
    assert User.objects.filter(username="stored").exists()
