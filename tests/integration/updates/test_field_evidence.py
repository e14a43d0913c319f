"""What nodes report of an image decides over estimates: arena, latency and missed deadlines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from devices.models import HardwareProfile, Node
from devices.reports import Said, take_in
from devices.wire import HealthReport, split_health
from tests import factories
from updates.builds import build_request
from updates.campaigns.eligibility import Choice, NodeKind, choose, images_of
from updates.campaigns.ingest import drain
from updates.dossier import dossier
from updates.field_evidence import gather
from updates.fits import refit
from updates.models import FieldEvidence, Fit, ModelImage, ModelVersion
from updates.version_document import version_document

pytestmark = pytest.mark.django_db
WORK = [{"operator": "CONV_2D", "macs": 2_000_000, "values": 8_000, "weight_bytes": 9_000, "passes": 500}]
HEALTHY = HealthReport(bytes(4), 5_000, (), 0, 0, 0, 0, 0, 41_000, 0, 0, 3_600)


@pytest.fixture
def profile(db: None) -> HardwareProfile:
    return factories.make_profile(name="stm32l4", latency_deadline_ms=200)


@pytest.fixture
def version(profile: HardwareProfile) -> ModelVersion:
    version = factories.make_version()
    version.images.update(facts={"work": WORK, "arena_estimates": {"cmsis-nn": 56_000}})
    refit(profile)
    return version


def tell(node: Node, image: ModelImage, **said: int) -> None:
    """The node's health report of this image, in parts, over a gateway."""
    report = replace(HEALTHY, active_prefix=bytes.fromhex(image.digest[:8]), **said)
    parts = split_health(report, report_id=7, part_bytes=36)
    take_in(said=[Said(node.endpoint, factories.NOW, report=part) for part in parts])
    drain(now=factories.NOW)


def node_of(profile: HardwareProfile, **fields: int) -> Node:
    return factories.make_node(profile=profile, **fields)


def choice(version: ModelVersion, profile: HardwareProfile) -> Choice:
    firmware = factories.make_firmware()
    kind = NodeKind(profile.pk, firmware.pk, None, None, None)
    return choose(kind=kind, images=images_of(version), profile=profile, firmware=firmware)


def test_the_worst_of_what_nodes_measured_takes_the_place_of_the_estimate_everywhere(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    image = version.images.get()
    assert Fit.objects.get().numbers["latency"]["evidence"] == "estimate"
    for p99, arena in ((41_000, 57_480), (63_500, 0), (52_000, 57_600)):
        tell(node_of(profile), image, p99_latency_us=p99, arena_used_bytes=arena)

    assert gather(now=factories.NOW) == 1

    numbers = Fit.objects.get().numbers
    assert (numbers["evidence"], numbers["arena_bytes"]) == ("node-reported", 57_600)
    assert numbers["arena_by_evidence"] == {
        "node-reported": 57_600,
        "tflm-bisected-x86": 57_472,
        "analytic-32-bit": 56_000,
    }
    assert numbers["latency"]["milliseconds"] == [63.5, 63.5, 63.5]
    assert numbers["latency"]["basis"] == "the worst p99 of 3 nodes of the profile that run the image"
    assert (numbers["measured"]["nodes"], numbers["measured"]["arena_nodes"]) == (3, 2)
    [entry] = version_document(version)["fits"]
    [row] = dossier(version.pk, now=factories.NOW)["fits"]
    for shown in (entry, row):
        assert (shown["evidence"], shown["latency"]["evidence"]) == ("node-reported", "node-reported")
        assert shown["measured"]["inferences"] == 15_000
    assert choice(version, profile).image == image


def test_a_measured_latency_beyond_the_deadline_refuses_what_the_estimate_let_pass(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    assert choice(version, profile).image is not None
    tell(node_of(profile), version.images.get(), p99_latency_us=200_100)

    gather(now=factories.NOW)

    fit = Fit.objects.get()
    assert not fit.fits
    assert "takes 200.1 ms (node-reported: the worst p99 of 1 node of the profile" in fit.reasons[0]
    refused = choice(version, profile)
    assert (refused.image, refused.cause) == (None, "does-not-fit")
    assert "200.1 ms" in refused.reason
    document = version_document(version)
    assert document["verdict"] == "failed"


def test_one_missed_deadline_refuses_a_profile_with_a_deadline_and_no_other(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    patient = factories.make_profile(name="patient")
    for each in (profile, patient):
        refit(each)
        tell(node_of(each), version.images.get(), deadline_misses=1)

    gather(now=factories.NOW)

    fits = {fit.profile.name: fit for fit in Fit.objects.select_related("profile")}
    assert {name: fit.fits for name, fit in fits.items()} == {"stm32l4": False, "patient": True}
    assert fits["stm32l4"].reasons[0].startswith("1 of 5000 inferences missed the deadline of 200 ms, on 1 of 1 node")
    assert fits["patient"].numbers["measured"]["deadline_misses"] == 1


def test_an_arena_that_a_node_reports_may_refuse_and_one_that_it_cannot_have_says_nothing(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    image = version.images.get()
    small = node_of(profile, sram_bytes=60_000)
    tell(small, image, arena_used_bytes=60_001)
    gather(now=factories.NOW)
    assert Fit.objects.get().numbers["evidence"] == "tflm-bisected-x86"

    tell(node_of(profile), image, arena_used_bytes=profile.arena_limit_bytes + 1)
    gather(now=factories.NOW)

    fit = Fit.objects.get()
    assert (fit.fits, fit.numbers["evidence"]) == (False, "node-reported")
    assert choice(version, profile).cause == "does-not-fit"


def test_what_nodes_say_of_one_image_or_profile_says_nothing_of_another(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    other, newer = factories.make_profile(name="other"), factories.make_version(family=version.family)
    for each in (other, profile):
        refit(each)
    tell(node_of(profile), version.images.get(), p99_latency_us=900_000, arena_used_bytes=80_000)

    gather(now=factories.NOW)

    spoken_of = Fit.objects.filter(numbers__evidence="node-reported")
    assert [(fit.image.version, fit.profile) for fit in spoken_of] == [(version, profile)]
    assert choice(newer, profile).image is not None
    assert choice(version, other).image is not None


def test_a_node_that_goes_on_to_another_image_leaves_what_it_said_of_the_first(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    newer, node = factories.make_version(family=version.family), node_of(profile)
    refit(profile)
    tell(node, version.images.get(), p99_latency_us=70_000)
    gather(now=factories.NOW)
    tell(node, newer.images.get(), p99_latency_us=90_000)
    gather(now=factories.NOW)

    said = {one.image.version: one.p99_us for one in FieldEvidence.objects.select_related("image__version")}
    assert said == {version: 70_000, newer: 90_000}


def test_nothing_is_judged_anew_while_nodes_say_the_same(profile: HardwareProfile, version: ModelVersion) -> None:
    node = node_of(profile)
    tell(node, version.images.get())
    assert gather(now=factories.NOW) == 1
    assert gather(now=factories.NOW) == 0
    tell(node, version.images.get(), inferences=5_001)
    assert gather(now=factories.NOW) == 1


def test_a_profile_keeps_the_class_that_its_nodes_hold_where_another_is_no_more_accurate(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    held = version.images.get()
    newer = factories.make_version(family=version.family)
    frugal = newer.images.get()
    frugal.granularity, frugal.arena_bytes = "fc-per-channel", 100
    frugal.save()
    same = factories.make_image(newer, precision=held.precision, granularity=held.granularity)
    type(frugal.validation).objects.create(image=same, verdict="passed", slices=[factories.make_slice()])
    newer.images.update(facts={"noise_db": 30.0})

    refit(profile)
    assert Fit.objects.get(image__version=newer, rank=0).image == frugal

    factories.make_node(profile=profile, active_digest=held.digest[:8])
    refit(profile)
    assert Fit.objects.get(image__version=newer, rank=0).image == same
    newer.images.filter(pk=frugal.pk).update(facts={"noise_db": 30.6})
    refit(profile)
    assert Fit.objects.get(image__version=newer, rank=0).image == frugal


def test_a_build_is_told_the_class_that_most_nodes_of_each_profile_hold(
    profile: HardwareProfile, version: ModelVersion
) -> None:
    other_family = factories.make_version().images.get()
    wide = factories.make_image(version, precision="int16x8")
    for digest in (version.images.order_by("id")[0].digest, wide.digest[:8], wide.digest):
        factories.make_node(profile=profile, active_digest=digest)
    for _ in range(5):
        factories.make_node(profile=profile, active_digest=other_family.digest)
    factories.make_profile(name="without-nodes")

    assert build_request(version).held == {"stm32l4": ("int16x8", "fc-per-tensor")}
