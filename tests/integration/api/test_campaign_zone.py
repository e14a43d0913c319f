from __future__ import annotations

from tests import factories
from tests.integration.api.conftest import Caller


def test_a_campaign_has_the_zone_that_it_was_given_and_none_that_there_is_not(call: Caller) -> None:
    version = factories.make_version()
    factories.make_node(firmware_build=factories.make_firmware())
    body = {"name": "spring", "version_id": version.pk, "waves": [{"percent": 100}], "time_zone": "Europe/Berlin"}

    assert call("operator", "POST", "/campaigns", body).json()["time_zone"] == "Europe/Berlin"
    refused = call("operator", "POST", "/campaigns", {**body, "time_zone": "Mars/Olympus"})
    assert (refused.status_code, refused.json()["field"]) == (422, "time_zone")
    assert "Europe/Berlin" in refused.json()["fix"]
