"""Log-in by OpenID Connect against a server that speaks it, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.test import Client

from fleet.accounts.models import Role, User
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.fleet.oidc_server import CLIENT_ID, CLIENT_SECRET, OidcServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def server(settings: Any) -> Iterator[OidcServer]:
    server = OidcServer()
    settings.OIDC_ENABLED = True
    settings.OIDC_SERVER_URL = server.url
    settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
    settings.OIDC_ROLES = {"ops": "operator", "leads": "approver", "root": "admin"}
    yield server
    server.close()


def come_in(server: OidcServer, client: Client | None = None, begin: str = "", **changed: str) -> Any:
    """The whole way of a browser; `changed` are what it brings back otherwise than it was given."""
    client = client or Client()
    to_server = client.get(f"/login/oidc/{begin}")
    back = server.authorize(to_server["Location"]) | changed
    return client.get("/login/oidc/callback/", back)


def problem_of(response: Any) -> str:
    assert response.status_code == 302
    return str(response["Location"]).removeprefix("/login/?problem=")


def test_a_new_user_is_made_with_the_role_of_the_highest_group(server: OidcServer) -> None:
    server.claims["groups"] = ["ops", "leads", "choir"]
    client = Client()
    response = come_in(server, client, begin="?next=/nodes/")
    user = User.objects.get(username="ann")
    assert response["Location"] == "/nodes/"
    assert client.get("/nodes/").status_code == 200
    assert (user.role, user.has_usable_password()) == ("approver", False)
    assert "/keys" in server.asked
    actions = list(AuditEntry.objects.order_by("pk").values_list("action", "actor"))
    assert actions == [("user.created", "single sign-on"), ("login", "ann")]


def test_the_role_follows_the_groups_of_each_log_in(server: OidcServer) -> None:
    for groups, role in ((["ops"], "operator"), (["leads"], "approver"), ([], "viewer"), ("ops", "operator")):
        server.claims["groups"] = groups
        come_in(server)
        assert User.objects.get(username="ann").role == role
    assert User.objects.count() == SocialAccount.objects.count() == 1


def test_another_claim_can_name_the_groups(server: OidcServer, settings: Any) -> None:
    settings.OIDC_ROLE_CLAIM = "roles"
    server.claims["roles"] = ["leads"]
    come_in(server)
    assert User.objects.get(username="ann").role == "approver"


def test_without_a_mapping_admins_give_the_roles(server: OidcServer, settings: Any) -> None:
    settings.OIDC_ROLES = {}
    come_in(server)
    User.objects.filter(username="ann").update(role=Role.OPERATOR)
    come_in(server)
    assert User.objects.get(username="ann").role == "operator"


def test_unknown_groups_are_refused_where_that_is_set(server: OidcServer, settings: Any) -> None:
    settings.OIDC_UNKNOWN_GROUPS = "refuse"
    server.claims["groups"] = ["choir"]
    assert problem_of(come_in(server)) == "no-role"
    assert not User.objects.exists()


def test_the_last_admin_keeps_the_role_whatever_the_groups_say(server: OidcServer) -> None:
    server.claims["groups"] = ["root"]
    come_in(server)
    server.claims["groups"] = []
    assert come_in(server)["Location"] == "/"
    assert User.objects.get(username="ann").role == "admin"


def test_a_local_user_is_not_taken_over_by_a_name(server: OidcServer) -> None:
    factories.make_user(Role.ADMIN, username="ann")
    assert problem_of(come_in(server)) == "name-taken"
    assert not SocialAccount.objects.exists()


def test_a_deactivated_user_stays_out(server: OidcServer) -> None:
    come_in(server)
    User.objects.update(is_active=False)
    assert problem_of(come_in(server)) == "inactive"
    assert AuditEntry.objects.get(action="login.failed").after["why"] == "inactive"  # type: ignore[index]


def test_an_unverified_address_stays_out(server: OidcServer) -> None:
    server.claims |= {"email": "ann@example.com", "email_verified": False}
    assert problem_of(come_in(server)) == "unverified"
    assert not User.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another client"},
        {"iss": "https://elsewhere.example.com"},
        {"exp": 1},
        {"sub": "u-2"},
    ],
)
def test_an_id_token_that_is_not_for_this_log_in_is_refused(server: OidcServer, change: dict[str, Any]) -> None:
    server.id_token_changes = change
    assert problem_of(come_in(server)) == "failed"
    assert not User.objects.exists()


def test_user_info_of_somebody_else_is_refused(server: OidcServer) -> None:
    server.userinfo_changes = {"sub": "u-2"}
    assert problem_of(come_in(server)) == "failed"


@pytest.mark.parametrize("signing", ["HS256", "none"])
def test_an_id_token_signed_by_no_key_of_the_server_is_refused(server: OidcServer, signing: str) -> None:
    server.signing = signing
    assert problem_of(come_in(server)) == "failed"


def test_an_id_token_signed_by_a_stranger_is_refused(server: OidcServer) -> None:
    server.sign_with_stranger = True
    assert problem_of(come_in(server)) == "failed"
    assert not User.objects.exists()


def test_a_state_that_this_browser_did_not_begin_is_refused(server: OidcServer) -> None:
    assert problem_of(come_in(server, state="another")) == "failed"
    begun = Client()
    back = server.authorize(begun.get("/login/oidc/")["Location"])
    assert problem_of(Client().get("/login/oidc/callback/", back)) == "failed"
    assert begun.get("/login/oidc/callback/", back)["Location"] == "/"


def test_an_answer_serves_once(server: OidcServer) -> None:
    client = Client()
    back = server.authorize(client.get("/login/oidc/")["Location"])
    client.get("/login/oidc/callback/", back)
    client.post("/logout/")
    assert problem_of(client.get("/login/oidc/callback/", back)) == "failed"


def test_a_code_that_the_server_did_not_give_is_refused(server: OidcServer) -> None:
    assert problem_of(come_in(server, code="made up")) == "failed"


def test_after_the_log_in_nobody_is_sent_to_another_site(server: OidcServer) -> None:
    assert come_in(server, begin="?next=https://evil.example.com/")["Location"] == "/"


def test_parameters_of_the_address_do_not_reach_the_server(server: OidcServer) -> None:
    address = Client().get("/login/oidc/?auth_params=nonce%3Dmine%26prompt%3Dnone&scope=admin")["Location"]
    assert "mine" not in address
    assert "prompt" not in address
    assert "admin" not in address


def test_a_server_that_is_away_is_said_so(server: OidcServer) -> None:
    server.close()
    response = Client().get("/login/oidc/", follow=True)
    assert "does not answer" in response.content.decode()


def test_the_log_in_page_offers_it_only_where_it_is_set(server: OidcServer, settings: Any) -> None:
    assert "/login/oidc/" in Client().get("/login/?next=/nodes/").content.decode()
    settings.OIDC_ENABLED = False
    assert "/login/oidc/" not in Client().get("/login/").content.decode()
    assert Client().get("/login/oidc/").status_code == 404
    assert Client().get("/login/oidc/callback/?code=x&state=y").status_code == 404
