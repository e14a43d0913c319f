"""What a version page, the comparison of two and the upload show."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from fleet.accounts.models import Role
from tests import factories
from updates.models import ModelVersion

SignIn = Callable[[Role], Client]


def text_of(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def test_the_fit_matrix_says_how_much_is_missing_and_puts_what_does_not_fit_first(sign_in: SignIn, db: None) -> None:
    roomy = factories.make_profile(name="a-roomy")
    tiny = factories.make_profile(name="z-tiny", sram_bytes=64 * 1024, reserved_sram_bytes=32 * 1024)
    version = factories.make_version(profiles=[roomy, tiny])

    page = sign_in(Role.VIEWER).get(f"/models/{version.pk}/")

    assert [profile.name for profile, _ in page.context["fit_rows"]] == ["z-tiny", "a-roomy"]
    body = page.content.decode()
    # 57,472 B of arena against (64 - 32) KiB x 0.70 = 22,937 B
    assert "34,535 B too much" in body
    assert "may run on 1 of 2 profiles" in body
    assert "smallest arena in which the TFLM interpreter ran it" in body


def test_the_fit_matrix_says_what_nodes_measured_and_of_how_many(sign_in: SignIn, db: None) -> None:
    profile = factories.make_profile(name="stm32l4")
    version = factories.make_version(profiles=[profile])
    fit = version.images.get().fits.get()
    band = {"evidence": "estimate", "milliseconds": [10.04, 25.0, 80.0]}
    fit.numbers |= {"latency": band, "measured": None}
    fit.save()
    client = sign_in(Role.VIEWER)

    before = text_of(client, f"/models/{version.pk}/")
    assert "about 25 ms, estimated (10 to 80)" in before
    assert "tflm-bisected-x86" in before
    assert "missed" not in before

    fit.numbers["evidence"] = "node-reported"
    fit.numbers["latency"] = band | {"evidence": "node-reported", "milliseconds": [63.5] * 3}
    said = {"nodes": 14, "arena_nodes": 1, "p99_nodes": 12, "inferences": 15_000, "deadline_misses": 3}
    fit.numbers["measured"] = said
    fit.save()

    after = text_of(client, f"/models/{version.pk}/")
    assert "node-reported, 1 node" in after
    assert "p99 63.5 ms, the worst of 12 nodes" in after
    assert "3 deadlines missed in 15,000 inferences of 14 nodes" in after


def test_a_slice_is_chosen_by_its_name_and_the_worst_one_shows_without(sign_in: SignIn, db: None) -> None:
    version = factories.make_version()
    report = version.images.get().validation
    report.slices = [
        factories.make_slice("clean", accuracy_int8=0.97),
        factories.make_slice("noise", accuracy_int8=0.90, verdict="failed"),
    ]
    report.save()
    client = sign_in(Role.VIEWER)

    def shown(query: str) -> str:
        return client.get(f"/models/{version.pk}/{query}").context["reports"][0]["confused"]["name"]

    assert shown("") == "noise"
    assert shown("?slice=clean") == "clean"
    assert shown("?slice=nowhere") == "noise"


def test_flipped_samples_are_listed_with_their_index_and_classes(sign_in: SignIn, db: None) -> None:
    body = text_of(sign_in(Role.VIEWER), f"/models/{factories.make_version().pk}/")

    assert "2 of 300 samples are decided otherwise after quantization" in body
    assert '<td class="num">203</td><td></td><td>press</td><td>press' in body


def test_a_report_from_before_flips_were_kept_still_shows(sign_in: SignIn, db: None) -> None:
    version = factories.make_version()
    report = version.images.get().validation
    report.slices = [{k: v for k, v in report.slices[0].items() if not k.startswith("flip")}]
    report.save()

    assert "before flipped samples were kept" in text_of(sign_in(Role.VIEWER), f"/models/{version.pk}/")


def test_a_build_under_way_shows_its_stage_rate_and_time_left(sign_in: SignIn, db: None) -> None:
    version = factories.make_version(
        state="building", stage="quantize", progress_percent=50, build_started_at=timezone.now() - timedelta(minutes=2)
    )

    body = text_of(sign_in(Role.VIEWER), f"/models/{version.pk}/")

    assert "now: quantize" in body
    assert "25 % a minute, about 2 min left" in body or "25 % a minute, about 1 min left" in body


def test_time_left_goes_by_what_earlier_builds_took(sign_in: SignIn, db: None) -> None:
    now = timezone.now()
    factories.make_version(build_started_at=now - timedelta(minutes=20), built_at=now - timedelta(minutes=10))
    version = factories.make_version(
        state="building", stage="judge", progress_percent=60, build_started_at=now - timedelta(minutes=1)
    )

    progress = sign_in(Role.VIEWER).get(f"/models/{version.pk}/").context["progress"]

    assert progress["left"] == pytest.approx(540, abs=20)


def test_a_waiting_build_says_how_many_come_before_it(sign_in: SignIn, db: None) -> None:
    for _ in range(3):
        last = factories.make_version(state="uploaded")

    assert "waits for 2 builds before it" in text_of(sign_in(Role.VIEWER), f"/models/{last.pk}/")


def test_a_refusal_names_stage_field_finding_and_what_to_change_and_leads_to_the_next_upload(
    sign_in: SignIn, db: None
) -> None:
    refusal = {
        "stage": "check",
        "code": "unsupported_operator",
        "field": "operator NonMaxSuppression",
        "message": "no kernel on the node",
        "fix": "replace it with a threshold",
    }
    version = factories.make_version(state="refused", refusal=refusal)
    client = sign_in(Role.OPERATOR)

    body = text_of(client, f"/models/{version.pk}/")
    for value in ("check", "operator NonMaxSuppression", "no kernel on the node", "replace it with a threshold"):
        assert value in body
    address = f"/models/upload/?family={version.family.name}"
    assert address in body
    assert f'value="{version.family.name}"' in text_of(client, address)


def two_versions() -> tuple[ModelVersion, ModelVersion]:
    profile = factories.make_profile(name="stm32l4")
    old = factories.make_version(profiles=[profile], name="1.0.0", size=50_000)
    new = factories.make_version(profiles=[profile], name="1.1.0", family=old.family, size=60_000)
    return old, new


def test_two_ticked_versions_are_compared_the_older_first(sign_in: SignIn, db: None) -> None:
    old, new = two_versions()

    response = sign_in(Role.VIEWER).get("/models/compare/", {"v": [new.pk, old.pk]})

    assert response["Location"] == f"/models/compare/?a={old.pk}&b={new.pk}"


def test_a_comparison_shows_accuracy_with_interval_fit_patches_and_contract(sign_in: SignIn, db: None) -> None:
    old, new = two_versions()
    report = new.images.get().validation
    report.slices = [factories.make_slice(accuracy_int8=0.80), factories.make_slice("noise")]
    report.save()
    factories.make_patch(old, new)
    factories.make_patch(new, old, state="waiting")
    factories.make_firmware(name="good")
    factories.make_firmware(name="other-contract", io_hash="ffffffff")

    response = sign_in(Role.VIEWER).get("/models/compare/", {"a": old.pk, "b": new.pk})

    found = response.context["found"]
    assert [(row.name, row.finding) for row in found.slices] == [("clean", "worse"), ("noise", "unknown")]
    assert found.slices[0].low < -0.16 < found.slices[0].high < 0
    assert [(row.patch.base_id, row.patch.state) for row in found.patches] == [
        (old.images.get().pk, "ready"),
        (new.images.get().pk, "waiting"),
    ]
    assert [(row.build.name, row.a, row.b) for row in found.firmware] == [
        ("good", True, True),
        ("other-contract", False, False),
    ]
    body = response.content.decode()
    assert "decides worse in 1 slice" in body
    assert "different evaluation data" in body
    assert "same inputs, outputs and preprocessing" in body


def test_another_contract_is_the_verdict(sign_in: SignIn, db: None) -> None:
    old, new = two_versions()
    new.images.update(io_hash="ffffffff")

    assert "no node can change over" in text_of(sign_in(Role.VIEWER), f"/models/compare/?a={old.pk}&b={new.pk}")


@pytest.mark.parametrize("query", ["", "?v=1", "?v=1&v=2&v=3", "?v=x&v=y", "?a=1"])
def test_too_few_or_too_many_ticks_say_that_two_are_wanted(sign_in: SignIn, db: None, query: str) -> None:
    response = sign_in(Role.VIEWER).get(f"/models/compare/{query}", follow=True)

    assert response.redirect_chain == [("/models/", 302)]
    assert "tick two" in response.content.decode()


def test_versions_of_two_families_are_not_compared(sign_in: SignIn, db: None) -> None:
    one, other = factories.make_version(), factories.make_version()

    response = sign_in(Role.VIEWER).get(f"/models/compare/?a={one.pk}&b={other.pk}", follow=True)

    assert "are of two families" in response.content.decode()


def test_comparing_what_does_not_exist_is_a_404(sign_in: SignIn, db: None) -> None:
    assert sign_in(Role.VIEWER).get("/models/compare/?a=1&b=2").status_code == 404


def test_who_gets_which_image_and_the_curve_are_shown(sign_in: SignIn, db: None) -> None:
    profile = factories.make_profile(name="roomy")
    version = factories.make_version(profiles=[profile])
    image = version.images.get()
    image.facts = {"noise_db": 31.2}
    image.save()
    kept = factories.make_image(version, precision="int4")
    factories.make_fit(kept, profile)
    kept.fits.update(rank=1)
    point = {
        "digest": image.digest,
        "strength": 4.0,
        "patch_bytes": 1234,
        "frames": 12,
        "hours": 0.5,
        "link": "LoRaWAN",
    }
    version.evidence = {"curve": [{**point, "metric": "accuracy", "loss": 0.004, "within_limit": True, "chosen": True}]}
    version.save()
    client = sign_in(Role.VIEWER)

    body = text_of(client, f"/models/{version.pk}/")

    assert "kept to compare" in body
    assert "1,234 B" in body
    assert "31.2 dB" in body
    header = client.get(f"/models/images/{image.digest}/guard.h")
    assert header["Content-Disposition"].startswith("attachment")
    assert image.digest in header.content.decode()
    assert client.get(f"/models/images/{'0' * 64}/guard.h").status_code == 404


def test_a_flipped_sample_is_drawn(sign_in: SignIn, db: None) -> None:
    version = factories.make_version()
    report = version.images.get().validation
    report.slices = [
        factories.make_slice(flips=[{"index": 1, "label": 0, "fp32": 0, "int8": 1, "outline": [0, 100, 50]}])
    ]
    report.save()

    assert 'points="0.0,23.0 64.0,1.0 128.0,12.0"' in text_of(sign_in(Role.VIEWER), f"/models/{version.pk}/")
