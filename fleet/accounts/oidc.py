"""Log-in by OpenID Connect, on the protocol parts of django-allauth. Off until OIDC_SERVER_URL, _CLIENT_ID and _SECRET
are set.

allauth asks and answers (discovery, state, PKCE, code for tokens); here the signature, nonce and subject of the id token
are always checked, users are made without a form, and the role follows the groups of each log-in.
"""

from __future__ import annotations

import secrets
from typing import Any, NoReturn

import structlog
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.internal import jwtkit
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialLogin
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.providers.openid_connect.provider import OpenIDConnectProvider
from allauth.socialaccount.providers.openid_connect.views import OpenIDConnectOAuth2Adapter
from django.conf import settings
from django.contrib.auth import login
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET
from jwt import PyJWTError, get_unverified_header
from requests import RequestException

from fleet.accounts import sessions
from fleet.accounts.addresses import client_address
from fleet.accounts.models import Role, User
from fleet.accounts.permissions import RANK
from fleet.accounts.services import AccountRefused, change_user, create_user
from fleet.audit.models import record

_log = structlog.get_logger(__name__)
PROVIDER_ID = "oidc"
ACTOR = "single sign-on"
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
# What the log-in page says; the key is all that stands in its address.
PROBLEMS = {
    "failed": "Single sign-on could not confirm who you are. Begin again; if it goes on, an admin finds the reason in the "
    "server's log.",
    "unreachable": "The single sign-on server does not answer. Try again in a minute, or use a local password.",
    "unverified": "Your e-mail address is not verified there. Verify it, then sign in again.",
    "inactive": "Your account here is deactivated. Ask an admin.",
    "no-role": "None of your groups may use this. Ask an admin for one that may.",
    "name-taken": "A local user has your name, and is not linked to single sign-on. Ask an admin.",
}


class Refused(Exception):
    """`problem` is a key of PROBLEMS."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def role_of(claims: dict[str, Any]) -> str | None:
    """The highest role that OIDC_ROLES gives to one of the groups; None where it is left to admins.

    Raises Refused where none is given and OIDC_UNKNOWN_GROUPS is `refuse`.
    """
    if not settings.OIDC_ROLES:
        return None
    groups = claims.get(settings.OIDC_ROLE_CLAIM, [])
    groups = groups if isinstance(groups, list) else [groups]
    roles = [settings.OIDC_ROLES[group] for group in groups if isinstance(group, str) and group in settings.OIDC_ROLES]
    if roles:
        return max(roles, key=RANK.__getitem__)
    if settings.OIDC_UNKNOWN_GROUPS == "refuse":
        raise Refused("no-role")
    return Role.VIEWER.value


class Provider(OpenIDConnectProvider):
    def redirect(self, request: HttpRequest, process: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """The nonce binds the id token to this browser's log-in (OpenID Connect Core 1.0, 3.1.2.1)."""
        nonce = secrets.token_urlsafe(24)
        # Nothing of it is taken from the address, as allauth would.
        kwargs |= {"auth_params": {"nonce": nonce}, "scope": self.get_scope(), "nonce": nonce}
        return super().redirect(request, process, *args, **kwargs)

    def get_oauth2_adapter(self, request: HttpRequest) -> VerifyingAdapter:
        return VerifyingAdapter(request, PROVIDER_ID)


class VerifyingAdapter(OpenIDConnectOAuth2Adapter):
    def get_callback_url(self, request: HttpRequest, app: SocialApp) -> str:
        return request.build_absolute_uri(reverse("oidc-callback"))

    def complete_login(self, request: HttpRequest, app: SocialApp, token: Any, **kwargs: Any) -> SocialLogin:
        if not kwargs["response"].get("id_token"):
            raise OAuth2Error("The server sent no id token.")
        try:
            return super().complete_login(request, app, token, **kwargs)
        except (KeyError, TypeError, ValueError) as error:
            raise OAuth2Error(f"The answer cannot be read: {error!r}") from error

    def _decode_id_token(self, app: SocialApp, id_token: str) -> dict[str, Any]:
        """Always by signature, and never by one that the client's own secret could have made."""
        try:
            algorithm = get_unverified_header(id_token).get("alg")
        except PyJWTError as error:
            raise OAuth2Error("The id token cannot be read.") from error
        if algorithm not in ALGORITHMS:
            raise OAuth2Error(f"The id token is signed by {algorithm}.")
        claims: dict[str, Any] = jwtkit.verify_and_decode(
            credential=id_token,
            keys_url=self.openid_config["jwks_uri"],
            issuer=self.openid_config["issuer"],
            audience=app.client_id,
            lookup_kid=jwtkit.lookup_kid_jwk,
        )
        return claims


class SocialAccountAdapter(DefaultSocialAccountAdapter):
    def get_app(self, request: HttpRequest, provider: str, client_id: str | None = None) -> SocialApp:
        return SocialApp(
            provider=OpenIDConnectProvider.id,
            provider_id=PROVIDER_ID,
            name=settings.OIDC_NAME,
            client_id=settings.OIDC_CLIENT_ID,
            secret=settings.OIDC_CLIENT_SECRET,
            settings={
                "server_url": settings.OIDC_SERVER_URL,
                "oauth_pkce_enabled": True,
                "scope": settings.OIDC_SCOPES,
            },
        )

    def get_provider(self, request: HttpRequest, provider: str, client_id: str | None = None) -> Provider:
        return Provider(request, app=self.get_app(request, provider))

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> NoReturn:
        """Ends allauth's part: what follows there would offer forms, mails and pages that this product has not."""
        try:
            user = _admit(sociallogin)
        except Refused as refusal:
            _note_failure(request, refusal.problem, sociallogin.account.uid)
            raise ImmediateHttpResponse(_to_login(refusal.problem)) from refusal
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        sessions.began(request, user, by=ACTOR)
        wanted = sociallogin.state.get("next") or ""
        safe = url_has_allowed_host_and_scheme(wanted, {request.get_host()}, require_https=request.is_secure())
        raise ImmediateHttpResponse(redirect(wanted if safe else settings.LOGIN_REDIRECT_URL))

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> NoReturn:
        problem = "unreachable" if isinstance(exception, RequestException) else "failed"
        _log.warning("oidc_failed", error=str(error), reason=repr(exception))
        _note_failure(request, problem, "")
        raise ImmediateHttpResponse(_to_login(problem))


def _admit(sociallogin: SocialLogin) -> User:
    id_token = sociallogin.account.extra_data.get("id_token") or {}
    claims = {**id_token, **(sociallogin.account.extra_data.get("userinfo") or {})}
    nonce = sociallogin.state.get("nonce")
    if not nonce or not secrets.compare_digest(str(id_token.get("nonce", "")), nonce):
        _log.warning("oidc_failed", reason="The nonce is not the one that was sent.")
        raise Refused("failed")
    if claims.get("sub") != id_token.get("sub"):
        _log.warning("oidc_failed", reason="User info and id token name different subjects.")
        raise Refused("failed")
    if claims.get("email_verified") is False:
        raise Refused("unverified")
    role = role_of(claims)
    known = SocialAccount.objects.select_related("user").filter(provider=PROVIDER_ID, uid=str(claims["sub"])).first()
    user = known.user if known else _made(claims, role)
    if not user.is_active:
        raise Refused("inactive")
    if role is not None and role != user.role:
        try:
            user = change_user(user_id=user.pk, role=role, now=timezone.now(), actor=ACTOR)
        except AccountRefused:
            # The last admin stays one, whatever the groups say: else nobody could manage accounts.
            _log.warning("oidc_role_kept", user=user.pk, role=user.role, wanted=role)
    return user


def _made(claims: dict[str, Any], role: str | None) -> User:
    """A name alone links nobody to an account that is there already: names at the other server are not ours to trust."""
    name = str(claims.get("preferred_username") or claims.get("email") or claims["sub"])
    try:
        with transaction.atomic():
            user = create_user(username=name, password=None, role=role or Role.VIEWER, actor=ACTOR)
            SocialAccount.objects.create(user=user, provider=PROVIDER_ID, uid=str(claims["sub"]), extra_data={})
    except (ValidationError, IntegrityError) as error:
        taken = User.objects.filter(username=name.replace("\x00", "")).exists()
        _log.warning("oidc_failed", reason=str(error))
        raise Refused("name-taken" if taken else "failed") from error
    return user


def _note_failure(request: HttpRequest, problem: str, uid: str) -> None:
    after = {"by": ACTOR, "why": problem, "subject": uid, "address": client_address(request)}
    record(actor="anonymous", action="login.failed", subject=User(), after=after)


def _to_login(problem: str) -> HttpResponse:
    return redirect(f"{resolve_url('login')}?problem={problem}")


def _enabled() -> None:
    if not settings.OIDC_ENABLED:
        raise Http404("Single sign-on is off.")


@require_GET
def begin(request: HttpRequest) -> HttpResponse:
    _enabled()
    try:
        return OAuth2LoginView.adapter_view(VerifyingAdapter(request, PROVIDER_ID))(request)
    except (RequestException, KeyError) as error:
        _log.warning("oidc_failed", reason=repr(error))
        return _to_login("unreachable")


@require_GET
def callback(request: HttpRequest) -> HttpResponse:
    _enabled()
    try:
        return OAuth2CallbackView.adapter_view(VerifyingAdapter(request, PROVIDER_ID))(request)
    except (RequestException, KeyError) as error:
        _log.warning("oidc_failed", reason=repr(error))
        return _to_login("unreachable")
