"""The document of a version as over REST, the C header, and which image a node is sent."""

from __future__ import annotations

import json

import pytest

from tests import factories
from updates.campaigns.bundles import bundles_for
from updates.campaigns.eligibility import NodeKind, choose, images_of
from updates.firmware_header import header_of
from updates.fits import refit
from updates.models import Fit, ModelImage, ModelVersion, ValidationReport
from updates.patches.bundle import unpack_bundle
from updates.patches.manifest import Guard, decode_manifest
from updates.patches.signing import TrustedKeys
from updates.signer import installation_signer
from updates.version_document import version_document

pytestmark = pytest.mark.django_db


def alternative(version: ModelVersion, *, verdict: str = "passed", noise: float = 40.0, **fields: object) -> ModelImage:
    image = factories.make_image(version, facts={"noise_db": noise, "arena_estimates": {"cmsis-nn": 1024}}, **fields)
    ValidationReport.objects.create(image=image, verdict=verdict, slices=[factories.make_slice()])
    return image


def test_a_profile_made_later_ranks_the_images_by_verdict_then_noise_then_arena() -> None:
    version = factories.make_version()
    plain = version.images.get()
    quieter = alternative(version, granularity="fc-per-channel", noise=33.0)
    unproved = alternative(version, precision="int4", verdict="inconclusive", noise=60.0)
    frugal = alternative(version, alignment=32, noise=32.8, arena_bytes=1024)
    foreign = alternative(version, precision="int16x8", noise=90.0, io_hash="00000016")

    profile = factories.make_profile()
    refit(profile)

    ranks = dict(Fit.objects.filter(profile=profile).values_list("image", "rank"))
    assert [ranks[one.pk] for one in (frugal, quieter, plain, unproved, foreign)] == [0, 1, 2, 3, 4]
    factories.make_firmware(io_hash="00000016")
    ModelImage.objects.exclude(pk=foreign.pk).update(io_hash="00000008")
    refit(profile)
    assert Fit.objects.get(profile=profile, image=foreign).rank == 0


def test_a_node_is_sent_the_best_image_that_its_firmware_takes() -> None:
    version = factories.make_version()
    plain = version.images.get()
    wide = alternative(version, precision="int16x8", noise=90.0, io_hash="00000016")
    profile = factories.make_profile()
    refit(profile)
    kind = NodeKind(profile.pk, None, None, None, None)

    def given(io_hash: str) -> ModelImage | None:
        firmware = factories.make_firmware(io_hash=io_hash)
        return choose(kind=kind, images=images_of(version), profile=profile, firmware=firmware).image

    assert given(factories.IO_HASH) == plain
    assert given("00000016") == wide


def test_an_image_that_was_never_wholly_proved_is_sent_to_nobody() -> None:
    version = factories.make_version()
    version.images.get().delete()
    alternative(version, verdict="inconclusive")

    assert images_of(version) == []


def test_the_document_says_who_gets_what_and_fails_for_a_profile_that_gets_nothing() -> None:
    roomy, tiny = factories.make_profile(name="roomy"), factories.make_profile(name="tiny", slot_bytes=10)
    version = factories.make_version()
    refit(roomy)
    refit(tiny)

    found = version_document(version)

    [image] = found["images"]
    assert (image["chosen"], image["chosen_for"], image["bytes"]) == (True, ["roomy"], 99_240)
    assert {fit["profile"]: fit["chosen"] for fit in found["fits"]} == {"roomy": True, "tiny": False}
    assert found["verdict"] == "failed"
    [reason] = found["reasons"]
    assert reason.startswith(
        "tiny: The one image does not fit tiny. The most accurate, int8 (fc-per-tensor): The image has"
    )
    assert reason.endswith("has 99240 bytes, the slot 10: make the model 99230 bytes smaller.")
    assert tiny.name in [one["name"] for one in found["profiles"]]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_profile_of_a_compiling_runtime_is_told_what_it_takes() -> None:
    version = factories.make_version()
    refit(factories.make_profile(name="st", runtime="stm32cubeai"))

    assert version_document(version)["reasons"] == [
        "st: No image is for stm32cubeai: compile the network with its own tool and give the report of that."
    ]


def test_a_profile_whose_image_was_not_compiled_yet_says_nothing_against_the_others() -> None:
    version = factories.make_version()
    refit(factories.make_profile(name="roomy"))
    refit(factories.make_profile(name="st", runtime="stm32cubeai"))

    found = version_document(version)

    assert (found["verdict"], found["reasons"]) == ("passed", [])
    assert {one["profile"]: one["digest"] is None for one in found["choices"]} == {"roomy": False, "st": True}


def test_the_manifest_and_the_header_carry_the_guard_of_the_image() -> None:
    bounds = {"mean_low": -20, "mean_high": 30, "deviation_low": 4, "deviation_high": 90, "saturated_high": 10}
    threshold = {"per_mille": 644, "fallback_rate": 0.1, "error_rate": 0.1, "error_interval": [0.07, 0.14]}
    version = factories.make_version()
    image = version.images.get()
    image.facts = {"guard": {"bounds": bounds, "threshold": threshold}}
    image.save()

    [bundle] = bundles_for(
        campaign=factories.make_campaign(version=version), image=image, firmware=factories.make_firmware()
    ).values()

    keys = TrustedKeys([installation_signer().public_key])
    assert decode_manifest(unpack_bundle(bundle).manifest, keys).guard == Guard(644, (-20, 30, 4, 90, 10))
    assert "#define MF_CONFIDENCE_THRESHOLD 644" in header_of(image.digest)[1]
    assert "#define MF_BOUND_MEAN_LOW (-20)" in header_of(image.digest)[1]


def test_the_header_of_an_image_that_was_built_before_guards_were_has_none() -> None:
    image = factories.make_version().images.get()

    name, text = header_of(image.digest)

    assert name == f"model_{image.digest[:8]}.h"
    assert image.digest in text
    assert "MF_BOUND" not in text
