from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.crypto import salted_hmac

from fleet.accounts.permissions import RANK, Role, Scope, reaches

__all__ = ["RANK", "ApiToken", "Role", "Scope", "Throttle", "User"]


class User(AbstractUser):
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.VIEWER)
    must_change_password = models.BooleanField(default=False)
    # Part of what a session is bound to: raising it ends every session of this user, wherever it is kept.
    session_generation = models.PositiveIntegerField(default=0)

    class Meta(AbstractUser.Meta):
        constraints = [models.CheckConstraint(condition=models.Q(role__in=Role.values), name="user_role_is_known")]

    def may(self, role: str) -> bool:
        """Whether this user's role reaches `role`."""
        return self.is_active and (self.is_superuser or reaches(self.role, role))

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        bound = f"{self.password}:{self.session_generation}"
        return salted_hmac("fleet.accounts.session", bound, secret=secret, algorithm="sha256").hexdigest()


class ApiToken(models.Model):
    """A bearer token for machines. Only its hash is kept: 256 random bits need no slow hash."""

    name = models.CharField(max_length=100)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope.choices))
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(scopes__contained_by=Scope.values, scopes__len__gt=0), name="token_scopes_are_known"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"

    @classmethod
    def issue(cls, **fields: Any) -> tuple[ApiToken, str]:
        """A new token and its secret, which can be read this once only."""
        secret = f"mf_{secrets.token_urlsafe(32)}"
        return cls.objects.create(token_hash=cls.hash(secret), **fields), secret

    @staticmethod
    def hash(secret: str) -> str:
        return hashlib.sha256(secret.encode()).hexdigest()

    def is_live(self, *, now: datetime) -> bool:
        unexpired = self.expires_at is None or now < self.expires_at
        return self.revoked_at is None and unexpired and self.user.is_active

    def may(self, scope: Scope, *, now: datetime) -> bool:
        """A token never reaches beyond its own scopes nor beyond its user's role, as that is now."""
        return self.is_live(now=now) and scope in self.scopes and self.user.may(scope.role)


class Throttle(models.Model):
    """Failed attempts to get in, counted under one key: a user name from an address, or an address."""

    key = models.CharField(max_length=64, unique=True)
    rule = models.CharField(max_length=32)
    # Empty where the name is not a user's: people type passwords into the wrong field.
    username = models.CharField(max_length=150, blank=True)
    address = models.CharField(max_length=64)
    failures = models.PositiveIntegerField(default=0)
    since = models.DateTimeField()
    locked_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["locked_until"], name="throttle_by_lock")]

    def __str__(self) -> str:
        return f"{self.username} from {self.address}" if self.username else self.address
