"""Who may do what: the one place. Roles are what people have; scopes say how much of it a token carries."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import models


class Role(models.TextChoices):
    """Each role may do all that the ones before it may."""

    VIEWER = "viewer", "Viewer: sees everything, changes nothing"
    OPERATOR = "operator", "Operator: registers nodes, uploads versions, makes campaigns, halts"
    APPROVER = "approver", "Approver: approves plans, starts, resumes and rolls back campaigns"
    ADMIN = "admin", "Admin: manages users and tokens"


RANK = {role: rank for rank, role in enumerate(Role.values)}


class Scope(models.TextChoices):
    READ = "read", "Read"
    NODES = "nodes", "Nodes"
    UPLOAD = "upload", "Uploads"
    CAMPAIGNS = "campaigns", "Campaigns"
    APPROVE = "approve", "Approvals"
    AUDIT = "audit", "Audit log"
    ADMIN = "admin", "Accounts"

    @property
    def role(self) -> Role:
        """The lowest role that has it."""
        return PERMISSIONS[self].role


@dataclass(frozen=True)
class Permission:
    """The lowest role that has a scope, and in words what it allows."""

    role: Role
    allows: tuple[str, ...]


PERMISSIONS: dict[Scope, Permission] = {
    Scope.READ: Permission(
        Role.VIEWER, ("See nodes, models, campaigns and their numbers", "Make and revoke tokens of one's own")
    ),
    Scope.NODES: Permission(Role.OPERATOR, ("Register and change nodes, hardware profiles and firmware builds",)),
    Scope.UPLOAD: Permission(Role.OPERATOR, ("Add model families and upload versions",)),
    Scope.CAMPAIGNS: Permission(Role.OPERATOR, ("Plan campaigns", "Halt, pause and abort campaigns")),
    Scope.APPROVE: Permission(Role.APPROVER, ("Approve plans", "Start, resume and roll back campaigns")),
    Scope.AUDIT: Permission(Role.APPROVER, ("Read and export the audit log",)),
    Scope.ADMIN: Permission(
        Role.ADMIN,
        (
            "Make, change and deactivate users",
            "Revoke tokens of others",
            "Unlock who failed to log in",
            "Add and set up network servers, and register the nodes that they know",
        ),
    ),
}


def reaches(role: str, needed: str) -> bool:
    return RANK[role] >= RANK[needed]


def scopes_of(role: str) -> list[str]:
    """All that a role may do, in the order of `Scope`."""
    return [scope.value for scope in Scope if reaches(role, scope.role)]
