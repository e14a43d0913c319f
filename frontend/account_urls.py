"""Addresses of accounts and the audit log."""

from __future__ import annotations

from django.urls import path

from fleet.accounts import oidc
from frontend import account_views, audit_views, login_views, user_views

urlpatterns = [
    path("login/", login_views.Login.as_view(), name="login"),
    path("login/oidc/", oidc.begin, name="oidc-login"),
    path("login/oidc/callback/", oidc.callback, name="oidc-callback"),
    path("logout/", login_views.Logout.as_view(), name="logout"),
    path("account/", account_views.account, name="account"),
    path("account/sessions/end/", account_views.end_sessions, name="account-sessions-end"),
    path("account/tokens/", account_views.tokens, name="tokens"),
    path("account/tokens/<int:token_id>/revoke/", account_views.revoke_token, name="token-revoke"),
    path("users/", user_views.users, name="users"),
    path("users/new/", user_views.new, name="user-new"),
    path("users/roles/", user_views.roles, name="roles"),
    path("users/<int:user_id>/", user_views.user, name="user"),
    path("users/<int:user_id>/role/", user_views.role, name="user-role"),
    path("users/<int:user_id>/activate/", user_views.activate, name="user-activate"),
    path("users/<int:user_id>/deactivate/", user_views.deactivate, name="user-deactivate"),
    path("users/<int:user_id>/password/", user_views.reset_password, name="user-password"),
    path("users/locks/<int:throttle_id>/remove/", user_views.unlock, name="user-unlock"),
    path("audit/", audit_views.audit, name="audit"),
    path("audit/export.<slug:kind>", audit_views.export, name="audit-export"),
]
