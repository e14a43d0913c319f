"""Guessing is slowed per name and address and per address, the same in every process, and said in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from fleet.accounts import throttling
from fleet.accounts.models import Role, Throttle
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.domain.race import race

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PER_USER, PER_ADDRESS = throttling.LIMITS["login-user"], throttling.LIMITS["login-address"]
BAD_TOKENS = throttling.LIMITS["token-address"]


def attempt(username: str = "ann", address: str = "192.0.2.1", now: datetime = NOW) -> None:
    throttling.count_login(username=username, address=address, now=now)


def attempts(count: int, **what: object) -> None:
    for _ in range(count):
        attempt(**what)  # type: ignore[arg-type]


@pytest.mark.django_db
class TestLimits:
    def test_after_five_failures_a_name_waits_a_quarter_of_an_hour_at_that_address(self) -> None:
        attempts(PER_USER.failures)
        with pytest.raises(throttling.LockedOut) as locked:
            attempt(now=NOW + timedelta(minutes=14))
        assert locked.value.until == NOW + PER_USER.wait
        attempt(now=NOW + PER_USER.wait)

    def test_another_address_and_another_name_are_not_held_back(self) -> None:
        attempts(PER_USER.failures)
        attempt(address="192.0.2.2")
        attempt(username="bob")

    def test_capitals_make_no_other_name(self) -> None:
        attempts(PER_USER.failures, username="Ann")
        with pytest.raises(throttling.LockedOut):
            attempt(username="ANN")

    def test_an_address_that_tries_many_names_waits_with_all_of_them(self) -> None:
        for number in range(PER_ADDRESS.failures):
            attempt(username=f"user-{number}")
        with pytest.raises(throttling.LockedOut):
            attempt(username="somebody else")

    def test_an_ipv6_customer_is_one_address(self) -> None:
        attempts(PER_USER.failures, address="2001:db8::1")
        with pytest.raises(throttling.LockedOut):
            attempt(address="2001:db8::ffff")

    def test_old_failures_are_forgotten(self) -> None:
        attempts(PER_USER.failures - 1)
        attempts(PER_USER.failures - 1, now=NOW + PER_USER.window)

    def test_success_takes_the_count_back(self) -> None:
        for _ in range(3 * PER_ADDRESS.failures):
            attempt()
            throttling.login_succeeded(username="ann", address="192.0.2.1")

    def test_what_no_limit_looks_at_is_removed_but_locks_stay(self) -> None:
        attempts(PER_USER.failures)
        attempt(username="bob")
        assert throttling.forget_old(now=NOW + timedelta(minutes=14)) == 0
        assert throttling.forget_old(now=NOW + timedelta(minutes=16)) == Throttle.objects.count() + 3


@pytest.mark.django_db(transaction=True)
def test_guesses_sent_at_once_are_counted_one_after_the_other() -> None:
    attempts(PER_USER.failures - 1)
    outcome = race(attempt, attempt)
    assert outcome.waited
    assert isinstance(outcome.error, throttling.LockedOut)


@pytest.fixture
def ann(db: None) -> str:
    return factories.make_user(Role.VIEWER, username="ann").username


def sign_in(password: str, **extra: str) -> tuple[int, str]:
    response = Client().post("/login/", {"username": "ann", "password": password}, **extra)  # type: ignore[arg-type]
    return response.status_code, response.content.decode()


def test_who_is_locked_out_reads_when_to_try_again_and_no_password_helps(ann: str) -> None:
    assert [sign_in("wrong")[0] for _ in range(5)] == [400, 400, 400, 400, 429]
    status, page = sign_in(factories.PASSWORD)
    assert status == 429
    assert "none is looked at until" in page
    assert "in 14 min" in page
    actions = list(AuditEntry.objects.order_by("pk").values_list("action", flat=True))
    assert actions == [*["login.failed"] * 5, "login.locked"]


def test_the_right_password_gets_in_before_the_limit_and_is_written_down(ann: str) -> None:
    sign_in("wrong")
    assert sign_in(factories.PASSWORD)[0] == 302
    entry = AuditEntry.objects.get(action="login")
    assert (entry.actor, entry.after) == ("ann", {"by": "password", "address": "127.0.0.1"})


def test_a_name_that_is_no_user_is_not_kept(db: None) -> None:
    Client().post("/login/", {"username": "my secret password", "password": "x"})
    Client().post("/login/", {"username": "nul\x00", "password": "x"})
    assert "my secret" not in str(list(AuditEntry.objects.values())) + str(list(Throttle.objects.values()))
    assert AuditEntry.objects.filter(action="login.failed").count() == 2


def test_a_header_of_a_stranger_does_not_make_another_address(ann: str) -> None:
    for number in range(5):
        sign_in("wrong", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert sign_in(factories.PASSWORD, HTTP_X_FORWARDED_FOR="198.51.100.99")[0] == 429


def test_a_header_of_our_own_proxy_does(ann: str, settings: object) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.0/8"]  # type: ignore[attr-defined]
    for _ in range(5):
        sign_in("wrong", HTTP_X_FORWARDED_FOR="10.9.9.9, 198.51.100.1")
    assert sign_in(factories.PASSWORD, HTTP_X_FORWARDED_FOR="10.9.9.9, 198.51.100.1")[0] == 429
    assert sign_in(factories.PASSWORD, HTTP_X_FORWARDED_FOR="198.51.100.2")[0] == 302


def test_an_admin_unlocks_and_that_is_written_down(ann: str, client: Client) -> None:
    for _ in range(5):
        sign_in("wrong")
    admin = factories.make_user(Role.ADMIN)
    client.force_login(admin)
    assert "ann" in client.get("/users/").content.decode()
    lock = Throttle.objects.get(rule="login-user")
    client.post(f"/users/locks/{lock.pk}/remove/")
    assert sign_in(factories.PASSWORD)[0] == 302
    assert AuditEntry.objects.get(action="login.unlocked").actor == admin.username


def test_bad_tokens_are_throttled_per_address_and_good_ones_never(db: None) -> None:
    from fleet.accounts.services import issue_token

    _, secret = issue_token(user=factories.make_user(), name="ci", role=Role.VIEWER, actor="test")

    def call(token: str) -> object:
        return Client().get("/api/v1/nodes", headers={"Authorization": f"Bearer {token}"})

    statuses = {call("mf_bad").status_code for _ in range(BAD_TOKENS.failures)}  # type: ignore[attr-defined]
    refused = call("mf_bad")
    assert statuses == {401}
    assert refused.status_code == 429  # type: ignore[attr-defined]
    assert 0 < int(refused["Retry-After"]) <= BAD_TOKENS.wait.total_seconds()  # type: ignore[index]
    assert call(secret).status_code == 200  # type: ignore[attr-defined]
    assert AuditEntry.objects.filter(action="token.locked").count() == 1
