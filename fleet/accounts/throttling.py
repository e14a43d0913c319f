"""Limits on guessing: so many failed attempts in a while, then a wait. The state is in PostgreSQL, so that every web
process sees the same. An attempt is counted before it is judged: guesses sent at once cannot run past the limit.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Greatest

from fleet.accounts.addresses import neighbourhood
from fleet.accounts.models import Throttle, User
from fleet.audit.models import record


@dataclass(frozen=True)
class Limit:
    """After `failures` within `window`, nothing more for `wait`."""

    failures: int
    window: timedelta
    wait: timedelta


LIMITS = {
    "login-user": Limit(5, timedelta(minutes=15), timedelta(minutes=15)),
    # An office behind one address may hold many people who mistype.
    "login-address": Limit(50, timedelta(minutes=15), timedelta(minutes=15)),
    # A build server with an old token fails often and guesses nothing.
    "token-address": Limit(100, timedelta(minutes=5), timedelta(minutes=5)),
}


class LockedOut(Exception):
    """Too many failures: `until` says when to try again."""

    def __init__(self, until: datetime) -> None:
        super().__init__(until)
        self.until = until


def folded(username: str) -> str:
    return unicodedata.normalize("NFKC", username).casefold()[:150]


def _key(rule: str, *parts: str) -> str:
    return hashlib.sha256("\0".join((rule, *parts)).encode()).hexdigest()


def _user(username: str) -> User | None:
    return None if "\x00" in username else User.objects.filter(username=username).first()


def _login_keys(username: str, address: str) -> dict[str, str]:
    near = neighbourhood(address)
    return {"login-user": _key("login-user", folded(username), near), "login-address": _key("login-address", near)}


def _locked_row(rule: str, key: str, address: str, username: str, now: datetime) -> Throttle:
    fresh = Throttle(key=key, rule=rule, address=neighbourhood(address), username=username, since=now)
    Throttle.objects.bulk_create([fresh], ignore_conflicts=True)
    return Throttle.objects.select_for_update().get(key=key)


def _count(row: Throttle, now: datetime) -> None:
    """One more attempt. Raises LockedOut where the wait is not over; the attempt after it begins anew."""
    limit = LIMITS[row.rule]
    if row.locked_until and now < row.locked_until:
        raise LockedOut(row.locked_until)
    if row.locked_until or row.since + limit.window <= now:
        row.failures, row.since, row.locked_until = 0, now, None
    row.failures += 1
    if row.failures >= limit.failures:
        row.locked_until = now + limit.wait
    row.save()


def count_login(*, username: str, address: str, now: datetime) -> None:
    """Before a password is looked at. Raises LockedOut. `login_succeeded` takes the count back."""
    keys = _login_keys(username, address)
    user = _user(username)
    with transaction.atomic():
        # Always in this order, so that two attempts never wait for each other.
        near = _locked_row("login-address", keys["login-address"], address, "", now)
        row = _locked_row("login-user", keys["login-user"], address, user.username if user else "", now)
        if near.locked_until and now < near.locked_until:
            raise LockedOut(near.locked_until)
        _count(row, now)
        _count(near, now)


def login_succeeded(*, username: str, address: str) -> None:
    keys = _login_keys(username, address)
    Throttle.objects.filter(key=keys["login-user"]).delete()
    Throttle.objects.filter(key=keys["login-address"]).update(
        failures=Greatest(F("failures") - 1, 0), locked_until=None
    )


@transaction.atomic
def login_failed(*, username: str, address: str, now: datetime) -> datetime | None:
    """Writes it down. Until when further attempts are refused, where this was one too many."""
    keys = _login_keys(username, address)
    user = _user(username)
    after = {"username": username if user else "not a user", "address": address}
    record(actor="anonymous", action="login.failed", subject=user or User(), after=after)
    locks = Throttle.objects.filter(key__in=keys.values(), locked_until__gt=now)
    for lock in locks:
        record(
            actor="throttle",
            action="login.locked",
            subject=user or User(),
            after={**after, "limit": lock.rule, "until": lock.locked_until.isoformat() if lock.locked_until else None},
        )
    return max((lock.locked_until for lock in locks if lock.locked_until), default=None)


def count_bad_token(*, address: str, now: datetime) -> None:
    """After a token was found to be none. Raises LockedOut; a live token is never refused for its neighbours."""
    with transaction.atomic():
        row = _locked_row("token-address", _key("token-address", neighbourhood(address)), address, "", now)
        _count(row, now)
        if row.locked_until:
            record(
                actor="throttle",
                action="token.locked",
                subject=row,
                after={"address": address, "until": row.locked_until.isoformat()},
            )


def locked(*, now: datetime) -> QuerySet[Throttle]:
    return Throttle.objects.filter(locked_until__gt=now).order_by("-locked_until", "pk")


@transaction.atomic
def unlock(*, throttle: Throttle, actor: str) -> bool:
    """Whether it was there still."""
    held = Throttle.objects.select_for_update().filter(pk=throttle.pk).first()
    if held is None:
        return False
    before = {
        "limit": held.rule,
        "username": held.username,
        "address": held.address,
        "until": held.locked_until.isoformat() if held.locked_until else None,
    }
    record(actor=actor, action="login.unlocked", subject=held, before=before)
    held.delete()
    return True


def forget_old(*, now: datetime) -> int:
    """Removes counts that no limit looks at any more."""
    oldest = now - max(limit.window for limit in LIMITS.values())
    return Throttle.objects.filter(since__lt=oldest).exclude(locked_until__gt=now).delete()[0]
