"""Adding a ChirpStack, making its applications post here, finding its devices, and saying what is missing."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from chirpstack_api import api, common
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from django.core.management import CommandError, call_command
from django.utils import timezone

from devices.links.lorawan.checking import Finding, check
from devices.links.lorawan.chirpstack import NotAllowed, Unreachable
from devices.links.lorawan.discovery import discover
from devices.links.lorawan.events import OWN_HEADER, hash_of
from devices.links.lorawan.models import LoRaWanDevice, NetworkServer
from devices.links.lorawan.servers import set_up
from devices.models import Node, UnknownEndpoint
from devices.tasks import feed_lorawan
from fleet.audit.models import AuditEntry
from tests import factories
from tests.integration.api.conftest import call  # noqa: F401 - a fixture
from tests.integration.lorawan.conftest import SECRET
from tests.integration.lorawan.far_end import APPLICATION, PROFILE, TOKEN, ClassA, FarEnd


def item(dev_eui: str, **tags: str) -> Any:
    return api.DeviceListItem(dev_eui=dev_eui, name=dev_eui, device_profile_id=PROFILE, tags=tags)


def found(server: NetworkServer) -> dict[str, Finding]:
    return {finding.subject: finding for finding in check(server_id=server.pk)}


def test_set_up_makes_every_application_post_here_with_a_secret(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.applications[str(uuid.UUID(int=9))] = "second"
    assert set_up(server_id=server.pk, actor="ada") == ["fleet", "second"]
    for integration in far_end.integrations.values():
        assert integration.event_endpoint_url == server.events_url
    header = far_end.integrations[APPLICATION].headers["Authorization"]
    server.refresh_from_db()
    assert server.event_secret_hashes == [hash_of(header.removeprefix("Bearer "))]
    far_end.authorization = header
    assert far_end.post("up", ClassA(far_end).event())[0] == 204
    far_end.authorization = f"Bearer {SECRET}"
    assert far_end.post("up", ClassA(far_end).event())[0] == 401
    entry = AuditEntry.objects.get(action="network_server.set_up")
    assert header.removeprefix("Bearer ") not in str(entry.after)


def integrated(url: str, **headers: str) -> api.HttpIntegration:
    return api.HttpIntegration(application_id=APPLICATION, event_endpoint_url=url, headers=headers)


def test_set_up_may_be_done_again_and_changes_nothing_but_the_secret(server: NetworkServer, far_end: FarEnd) -> None:
    set_up(server_id=server.pk, actor="ada")
    first = dict(far_end.integrations[APPLICATION].headers)
    set_up(server_id=server.pk, actor="ada")
    again = far_end.integrations[APPLICATION]
    assert again.event_endpoint_url == server.events_url
    assert list(again.headers) == list(first) == ["Authorization"]
    assert again.headers["Authorization"] != first["Authorization"]


def test_addresses_that_events_go_to_already_keep_getting_them(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.integrations[APPLICATION] = integrated("http://plant/a, http://plant/b", authorization="Bearer theirs")
    far_end.integrations[APPLICATION].encoding = api.PROTOBUF
    set_up(server_id=server.pk, actor="ada")
    set_up(server_id=server.pk, actor="ada")
    kept = far_end.integrations[APPLICATION]
    assert kept.event_endpoint_url == f"{server.events_url},http://plant/a,http://plant/b"
    assert kept.headers["authorization"] == "Bearer theirs"
    assert kept.encoding == api.PROTOBUF
    finding = found(server)["application fleet"]
    assert (finding.level, "http://plant/a" in finding.message) == ("good", True)

    far_end.authorization, far_end.headers = "Bearer theirs", {OWN_HEADER: kept.headers[OWN_HEADER]}
    assert far_end.post("up", ClassA(far_end).event())[0] == 204
    far_end.headers = {OWN_HEADER: "Bearer wrong"}
    assert far_end.post("up", ClassA(far_end).event())[0] == 401


def test_an_authorization_that_nobody_else_needs_is_replaced(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.integrations[APPLICATION] = integrated("", authorization="Bearer left over", **{"X-Proxy": "1"})
    set_up(server_id=server.pk, actor="ada")
    assert sorted(far_end.integrations[APPLICATION].headers) == ["Authorization", "X-Proxy"]


def test_a_set_up_that_fails_half_way_refuses_no_event(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.refuse["CreateHttpIntegration"] = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(Unreachable):
        set_up(server_id=server.pk, actor="ada")
    assert far_end.post("up", ClassA(far_end).event())[0] == 204
    server.refresh_from_db()
    assert len(server.event_secret_hashes) == 2


def test_devices_whose_tags_say_what_they_are_become_nodes(server: NetworkServer, far_end: FarEnd) -> None:
    profile, build = factories.make_profile(name="board"), factories.make_firmware(name="fw-1")
    far_end.profile.region = common.US915
    far_end.devices = [
        item("0a00000000000001", profile="board", firmware_build="fw-1", site="plant-3", line="7"),
        item("0a00000000000002", profile="other", site="plant-3"),
    ]
    first = discover(server_id=server.pk, actor="ada")
    assert (first.devices, first.registered, first.incomplete) == (2, 1, 1)
    node = Node.objects.get(endpoint="0a00000000000001")
    assert (node.profile, node.firmware_build, node.site, node.labels) == (profile, build, "plant-3", {"line": "7"})
    assert LoRaWanDevice.objects.get(node=node).region == "US915"
    unknown = UnknownEndpoint.objects.get(endpoint="0a00000000000002")
    assert unknown.missing == "tag profile: 'other' is unknown here; tag firmware_build is missing."

    Node.objects.update(site="moved")
    again = discover(server_id=server.pk, actor="ada")
    assert (again.known, again.registered) == (1, 0)
    assert Node.objects.get().site == "moved"


def test_tags_that_an_older_chirpstack_leaves_out_of_its_list_are_asked_for(
    server: NetworkServer, far_end: FarEnd
) -> None:
    factories.make_profile(name="board"), factories.make_firmware(name="fw-1")
    far_end.devices = [item(f"{at:016x}") for at in range(1, 61)]
    # The first 19 have none; then all others have.
    far_end.tags = {f"{at:016x}": {"profile": "board", "firmware_build": "fw-1"} for at in range(20, 61)}
    assert discover(server_id=server.pk, actor="ada").registered == 41

    far_end.tags, far_end.calls = {}, []
    far_end.devices = [item(f"{at:016x}") for at in range(100, 200)]
    assert discover(server_id=server.pk, actor="ada").incomplete == 100
    assert far_end.calls.count("Device.Get") == 20


def test_discovery_reads_page_after_page(server: NetworkServer, far_end: FarEnd) -> None:
    factories.make_profile(name="board"), factories.make_firmware(name="fw-1")
    far_end.devices = [item(f"{at:016x}", profile="board", firmware_build="fw-1") for at in range(1, 251)]
    assert discover(server_id=server.pk, actor="ada").registered == 250
    assert far_end.calls.count("Device.List") == 3
    assert LoRaWanDevice.objects.count() == 250


def test_a_server_in_order_has_no_problem(server: NetworkServer, far_end: FarEnd) -> None:
    set_up(server_id=server.pk, actor="ada")
    far_end.devices = [item("0a00000000000001")]
    far_end.authorization = far_end.integrations[APPLICATION].headers["Authorization"]
    radio = ClassA(far_end)
    factories.make_node(link="lorawan", endpoint=radio.dev_eui)
    radio.uplink()
    feed_lorawan()
    findings = check(server_id=server.pk)
    assert {finding.level for finding in findings} == {"good"}
    server.refresh_from_db()
    assert server.checked_at is not None
    assert len(server.findings) == len(findings)


def test_the_check_says_what_is_missing(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.profile.supports_class_c = True
    far_end.profile.app_layer_params.ts004_version = api.TS004_V100
    far_end.devices = [item("0a00000000000001")]
    node = factories.make_node(link="lorawan", endpoint="0a00000000000001")
    LoRaWanDevice.objects.create(node=node, server=server, region="EU868")
    findings = check(server_id=server.pk)
    words = " ".join(f"{finding.level} {finding.message}" for finding in findings)
    for expected in ("no HTTP integration", "Class C", "TS004", "No event has ever come", "neither keys"):
        assert expected in words
    assert [finding.level for finding in findings] == sorted(
        (finding.level for finding in findings), key=["problem", "warning", "good"].index
    )
    far_end.keys.add("0a00000000000001")
    assert "has not joined" in found(server)["device 0a00000000000001"].message


def test_an_integration_that_points_elsewhere_is_named(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.integrations[APPLICATION] = api.HttpIntegration(
        application_id=APPLICATION, event_endpoint_url="http://elsewhere/"
    )
    assert "http://elsewhere/" in found(server)["application fleet"].message


def test_our_address_with_a_slash_behind_it_is_a_problem_that_set_up_solves(
    server: NetworkServer, far_end: FarEnd
) -> None:
    set_up(server_id=server.pk, actor="ada")
    far_end.integrations[APPLICATION].event_endpoint_url += "/"
    assert found(server)["application fleet"].level == "problem"
    set_up(server_id=server.pk, actor="ada")
    assert far_end.integrations[APPLICATION].event_endpoint_url == server.events_url


def test_an_integration_with_another_secret_is_a_problem(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.integrations[APPLICATION] = integrated(server.events_url, Authorization="Bearer of somebody else")
    finding = found(server)["application fleet"]
    assert (finding.level, "secret" in finding.message) == ("problem", True)


def test_a_refused_token_is_said_so(server: NetworkServer, far_end: FarEnd) -> None:
    NetworkServer.objects.update(token_sealed=server.token_sealed)
    far_end.refuse["Application.List"] = grpc.StatusCode.UNAUTHENTICATED
    (finding,) = check(server_id=server.pk)
    assert (finding.level, finding.subject) == ("problem", "token")
    assert "API key" in finding.fix


def test_a_server_that_is_not_there_is_said_so(server: NetworkServer) -> None:
    NetworkServer.objects.update(target="127.0.0.1:1")
    (finding,) = check(server_id=server.pk)
    assert (finding.level, finding.subject) == ("problem", "target")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[bytes, bytes]:
    """A key and its own certificate for localhost, in PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant")])
    now = timezone.now()
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret, made.public_bytes(Encoding.PEM)


def test_a_server_with_a_certificate_of_our_own_ca_is_reached_over_tls(
    server: NetworkServer, far_end: FarEnd, certificate: tuple[bytes, bytes], tmp_path: Path, settings: Any
) -> None:
    NetworkServer.objects.update(tls=True, target=far_end.listen_with_tls(*certificate))
    assert found(server)["target"].level == "problem"

    NetworkServer.objects.update(target=far_end.listen_with_tls(*certificate))
    settings.CHIRPSTACK_CA_FILE = str(tmp_path / "ca.pem")
    assert "No such file" in found(server)["target"].message
    (tmp_path / "ca.pem").write_bytes(certificate[1])
    assert found(server)["API"].level == "good"


def test_no_application_is_said_so(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.applications.clear()
    assert found(server)["applications"].level == "problem"


def test_the_command_checks_sets_up_and_discovers(server: NetworkServer, far_end: FarEnd) -> None:
    out = StringIO()
    call_command("chirpstack", "setup", stdout=out)
    call_command("chirpstack", "discover", "here", stdout=out)
    call_command("chirpstack", "check", stdout=out)
    assert server.events_url in out.getvalue()
    far_end.refuse["Application.List"] = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(CommandError, match="problems"):
        call_command("chirpstack", "check", stdout=out)
    with pytest.raises(CommandError, match="token"):
        call_command("chirpstack", "setup", stdout=out)
    with pytest.raises(CommandError, match="here"):
        call_command("chirpstack", "check", "elsewhere", stdout=out)


Call = Callable[..., Any]
HERE = {"event_base_url": "https://fleet.example.com"}


def test_an_admin_keeps_servers_over_the_api_and_nobody_reads_their_secrets(call: Call, far_end: FarEnd) -> None:  # noqa: F811
    body = {"name": "plant", "target": far_end.target, "token": TOKEN, "event_secret": "sixteen letters!"} | HERE
    for role in ("viewer", "operator", "approver"):
        assert call(role, "POST", "/network-servers", body).status_code == 403
    made = call("admin", "POST", "/network-servers", body)
    assert made.status_code == 201
    path = f"/network-servers/{made.json()['id']}"
    assert call("admin", "PATCH", path, {"tenant_id": str(uuid.UUID(int=3))}).json()["tenant_id"][-1] == "3"
    for answer in (call("viewer", "GET", path), call("viewer", "GET", "/network-servers")):
        assert answer.status_code == 200
        assert TOKEN not in answer.content.decode()
        assert "token" not in answer.content.decode()
        assert "sixteen" not in answer.content.decode()
    assert call("operator", "POST", f"{path}/check").json()[0]["level"] == "problem"
    assert call("admin", "POST", f"{path}/setup").json() == {"applications": ["fleet"]}
    assert call("admin", "POST", f"{path}/discover").json()["devices"] == 0
    assert call("viewer", "POST", f"{path}/setup").status_code == 403
    assert call("admin", "DELETE", path).status_code == 204
    assert call("viewer", "GET", path).status_code == 404
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions[-5:] == [
        "network_server.added",
        "network_server.changed",
        "network_server.set_up",
        "network_server.discovered",
        "network_server.removed",
    ]
    assert TOKEN not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"target": "no-port"}, "target"),
        ({"target": "host:99999"}, "target"),
        ({"token": ""}, "token"),
        ({"token": "two words"}, "token"),
        ({"event_secret": "short"}, "event_secret"),
        ({"tenant_id": "7"}, "tenant_id"),
        ({"event_base_url": "ftp//x"}, "event_base_url"),
        ({"event_base_url": ""}, "event_base_url"),
        ({"name": "with space"}, "name"),
    ],
)
def test_a_bad_value_is_refused_with_its_field(call: Call, change: dict[str, str], field: str) -> None:  # noqa: F811
    body = {"name": "plant", "target": "host:8080", "token": TOKEN} | HERE | change
    answer = call("admin", "POST", "/network-servers", body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert not NetworkServer.objects.exists()


def test_a_server_that_is_down_is_said_so_over_the_api(call: Call) -> None:  # noqa: F811
    made = call("admin", "POST", "/network-servers", {"name": "gone", "target": "127.0.0.1:1", "token": TOKEN} | HERE)
    answer = call("admin", "POST", f"/network-servers/{made.json()['id']}/setup")
    assert answer.status_code == 409
    assert answer.json()["field"] == "target"


def test_errors_are_told_apart(server: NetworkServer, far_end: FarEnd) -> None:
    far_end.refuse["Application.List"] = grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(NotAllowed):
        discover(server_id=server.pk, actor="ada")
