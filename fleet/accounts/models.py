from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import Any

from django.contrib.auth.models import AbstractUser
from django.db import models


class Role(models.TextChoices):
    """Each role may do all that the ones before it may."""

    VIEWER = "viewer", "Viewer: sees everything, changes nothing"
    OPERATOR = "operator", "Operator: registers nodes, uploads versions, makes campaigns, halts"
    APPROVER = "approver", "Approver: approves plans, starts, resumes and rolls back campaigns"
    ADMIN = "admin", "Admin: manages users and tokens"


RANK = {role: rank for rank, role in enumerate(Role.values)}


class User(AbstractUser):
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.VIEWER)

    class Meta(AbstractUser.Meta):
        constraints = [models.CheckConstraint(condition=models.Q(role__in=Role.values), name="user_role_is_known")]

    def may(self, role: str) -> bool:
        """Whether this user's role reaches `role`."""
        return self.is_active and (self.is_superuser or RANK[self.role] >= RANK[role])


class ApiToken(models.Model):
    """A bearer token for machines. Only its hash is kept: 256 random bits need no slow hash."""

    name = models.CharField(max_length=100)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.OPERATOR)
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(role__in=Role.values), name="token_role_is_known")]

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

    def may(self, role: str, *, now: datetime) -> bool:
        """A token never reaches beyond its own role nor beyond its user's."""
        live = self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
        return live and RANK[self.role] >= RANK[role] and self.user.may(role)
