"""Stories in Chromium: a campaign from its first plan to its approval; an upload, refused, mended and rolled out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, Page

from devices.models import FirmwareBuild, Node
from devices.simulator.chirpstack.gateway import GatewaySpec
from devices.simulator.lorawan.background import BackgroundChirpStack
from devices.simulator.lorawan.spec import LorawanNodeSpec, LorawanSpec
from fleet.accounts.models import Role
from tests import factories
from tests.browser.field import worker
from tests.browser.visitor import NARROW, SIZES, Visitor, overflow, signed_in_page
from updates.builds import build_due
from updates.models import Campaign, ModelImage, ModelVersion
from updates.signer import installation_signer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stages_run_once"),
]
MODELS = Path(__file__).resolve().parents[2] / "demo" / "models"


def look(page: Page, name: str, width: int) -> None:
    """Keeps a picture where SCREENSHOTS names a folder, and lets no page be wider than its window."""
    page.wait_for_load_state("load")
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}-{width}.png", full_page=True)
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"{name} is {overflow} px too wide"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_campaign_is_built_previewed_saved_approved_and_started(
    live_server: object,
    browser: Browser,
    width: int,
    height: int,
) -> None:
    profile = factories.make_profile(name="stm32l4")
    tiny = factories.make_profile(name="tiny", sram_bytes=64 * 1024, reserved_sram_bytes=32 * 1024)
    firmware = factories.make_firmware()
    version = factories.make_version(profiles=[profile, tiny], name="2.0.0")
    for index in range(30):
        factories.make_node(profile=tiny if index < 4 else profile, firmware_build=firmware)
    address = live_server.url  # type: ignore[attr-defined]
    page = signed_in_page(browser, address, Role.APPROVER, width, height, "light")
    page.goto(f"{address}/campaigns/new/?version={version.pk}")

    page.fill("#id_name", "winter")
    page.fill("#id_node_filter", "site:plant-3 colour:red")
    page.wait_for_selector("#filter-count:has-text('Character 14')")
    page.fill("#id_node_filter", "site:plant-3")
    page.wait_for_selector("#filter-count:has-text('30 nodes match')")
    page.click("button[aria-label='Remove wave 2']")
    page.click("button[aria-label='Remove wave 1']")
    page.click("text=Add a wave")
    assert page.locator("ol.waves > li").count() == 4
    page.click("button[aria-label='Remove wave 3']")
    page.select_option("#id_time_zone", "Europe/Berlin")
    look(page, "builder", width)

    page.click(".actions button:has-text('Show the first plan')")
    page.wait_for_selector("#first-plan")
    look(page, "builder-first-plan", width)
    assert "26 of 30 nodes would be reached" in page.inner_text("#verdict")
    assert "The campaign will hold after" in page.inner_text("#first-plan")
    assert "34,535" not in page.inner_text("#first-plan")
    assert not Campaign.objects.exists()

    page.click(".actions button:has-text('Save the plan')")
    page.wait_for_selector("#verdict:has-text('Ready to approve: 26 of 30')")
    page.click("#calendar-table summary")
    assert "CET" in page.inner_text("#calendar-table") or "CEST" in page.inner_text("#calendar-table")
    look(page, "plan-calendar", width)
    page.click("text=Approve and start…")
    page.click("button:has-text('Approve and start')")
    page.wait_for_selector("#verdict:has-text('is scheduled')")

    campaign = Campaign.objects.get()
    assert (campaign.state, campaign.approved_hash) == ("scheduled", campaign.plan_hash)
    assert "started it" in page.inner_text("#live-campaign")


def test_an_upload_is_refused_with_what_to_change_and_the_mended_one_is_rolled_out(
    live_server: object,
    browser: Browser,
    tmp_path: Path,
) -> None:
    address = live_server.url  # type: ignore[attr-defined]
    page = signed_in_page(browser, address, Role.ADMIN, 1280, 900, "light")

    def upload(name: str, network: str) -> None:
        page.fill("#id_version_name", name)
        page.set_input_files("#id_onnx", MODELS / network)
        page.set_input_files("#id_calibration", MODELS / "imu-calibration.npz")
        page.set_input_files("#id_evaluation", MODELS / "imu-evaluation.npz")
        page.click("button:has-text('Upload')")
        page.wait_for_selector("#build")

    page.goto(f"{address}/hardware/profiles/new/")
    for field, value in (("name", "stm32l4"), ("slot_bytes", 262_144), ("sram_bytes", 131_072)):
        page.fill(f"#id_{field}", str(value))
    page.fill("#id_reserved_sram_bytes", "40960")
    page.click("button:has-text('Save')")
    page.wait_for_selector("text=stm32l4 is known now")
    page.goto(f"{address}/models/upload/")
    page.fill("#id_family_name", "imu")
    upload("1.0.0", "imu-unsupported.onnx")
    assert "waits for a worker" in page.inner_text("#build")
    build_due(timezone.now(), 1)

    # The page follows the build by itself.
    page.wait_for_selector("#refusal", timeout=10_000)
    refusal = ModelVersion.objects.get().refusal or {}
    shown = page.inner_text("main")
    for field in ("stage", "field", "message", "fix"):
        assert refusal[field] in shown, field
    look(page, "upload-refused", 1280)

    page.click("text=Upload the mended version")
    assert page.input_value("#id_family_name") == "imu"
    upload("1.0.1", "imu-1.0.onnx")
    build_due(timezone.now(), 1)
    page.wait_for_selector("#verdict:has-text('may run on 1 of 1 profile')", timeout=10_000)

    look(page, "version-ready", 1280)
    page.set_viewport_size({"width": 390, "height": 844})
    look(page, "version-ready", 390)
    panel = page.locator(".conf .scroll-x").first
    assert panel.evaluate("one => one.clientWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{address}/models/")
    assert page.locator("input[name=v]").count() == 2
    roll_out(page, address, tmp_path)


def roll_out(page: Page, address: str, folder: Path) -> None:
    """To two nodes behind a ChirpStack, which hold what no version here has: every step on screen."""
    factory = b"what they left the factory with"
    image = ModelImage.objects.get(fits__profile__name="stm32l4", fits__rank=0)
    page.goto(f"{address}/hardware/firmware-builds/new/")
    page.fill("#id_name", "fw-1")
    page.fill("#id_operators", " ".join(image.operators))
    page.fill("#id_io_hash", image.io_hash)
    page.click("button:has-text('Save')")
    page.wait_for_selector("text=fw-1 is known now")
    tags = {"profile": "stm32l4", "firmware_build": "fw-1"}
    nodes = [
        LorawanNodeSpec(
            endpoint=f"band-{number}",
            class_hash=FirmwareBuild.objects.get().class_hash,
            slot_bytes=262_144,
            active=hashlib.sha256(factory).hexdigest(),
            wake_interval_s=60.0,
            data_rate=5,
            tags=tags,
        )
        for number in range(2)
    ]
    field = LorawanSpec(
        public_keys=[installation_signer().public_key],
        images={nodes[0].active: factory},
        nodes=nodes,
        gateways=[GatewaySpec("0016c001f153a14c", duty_cycle=False)],
    )
    with BackgroundChirpStack(folder, field, time_scale=60.0) as chirpstack:
        page.goto(f"{address}/network-servers/new/")
        for name, value in (("name", "field"), ("target", chirpstack.address), ("token", chirpstack.token)):
            page.fill(f"#id_{name}", value)
        page.fill("#id_event_base_url", address)
        page.click("button:has-text('Save')")
        page.click("button:has-text('Set up events')")
        page.click("button:has-text('Discover nodes')")
        page.wait_for_selector("text=2 registered")

        page.goto(f"{address}/models/")
        page.click("a:has-text('1.0.1')")
        page.click("text=Plan a campaign")
        page.fill("#id_name", "first roll-out")
        for _ in range(4):
            page.click("button[aria-label='Remove wave 1']")
        page.fill("input[name=soak_hours]", "0")
        page.fill("#id_minimum_sample", "2")
        page.click(".actions button:has-text('Save the plan')")
        page.wait_for_selector("#verdict:has-text('2 of 2 nodes')")
        page.click("text=Approve and start…")
        page.click("button:has-text('Approve and start')")
        page.wait_for_selector("#live-campaign")
        with worker(Campaign.objects.get().pk):
            page.wait_for_selector("#verdict:has-text('Finished')", timeout=200_000)
    assert "2 of 2 nodes" in page.inner_text("#verdict")
    look(page, "rolled-out", 1280)
    assert set(Node.objects.values_list("active_digest", flat=True)) == {image.digest}


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_two_versions_are_ticked_and_compared_and_a_failed_patch_is_built_again(
    live_server: object,
    browser: Browser,
    width: int,
    height: int,
) -> None:
    address = live_server.url  # type: ignore[attr-defined]
    profile = factories.make_profile(name="stm32l4")
    old = factories.make_version(profiles=[profile], name="1.0.0")
    new = factories.make_version(profiles=[profile], name="1.1.0", family=old.family)
    factories.make_firmware(name="fw-3")
    factories.make_node(profile=profile, active_digest=old.images.get().digest)
    factories.make_patch(old, new)
    failed = factories.make_patch(new, old, state="failed", failure="codec 1: decodes to other bytes", attempts=3)
    page = signed_in_page(browser, address, Role.OPERATOR, width, height, "light")

    page.goto(f"{address}/models/")
    look(page, "versions", width)
    page.check(f"input[value='{old.pk}']")
    page.check(f"input[value='{new.pk}']")
    page.click("button:has-text('Compare')")
    page.wait_for_selector("#between")
    look(page, "compare", width)
    assert "No slice shows a difference" in page.inner_text("#verdict")

    page.goto(f"{address}/patches/")
    look(page, "patches", width)
    page.click("button:has-text('Build again')")
    page.wait_for_selector("#verdict:has-text('1 patch is being built')")

    failed.refresh_from_db()
    assert failed.state == "waiting"


def test_four_images_on_a_phone_scroll_within_their_table(visitor: Visitor) -> None:
    profile = factories.make_profile()
    version = factories.make_version(profiles=[profile])
    for precision, granularity in (("int8", "fc-per-channel"), ("int16x8", "fc-per-tensor"), ("int4", "fc-per-tensor")):
        factories.make_fit(factories.make_image(version, precision=precision, granularity=granularity), profile)
    page = visitor.page(Role.VIEWER, size=NARROW)

    page.goto(f"/models/{version.pk}/")

    assert page.locator(".table.fit").bounding_box()["width"] > 390  # type: ignore[index]
    assert overflow(page) == 0
