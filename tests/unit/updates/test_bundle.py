"""A bundle comes apart into what was put in, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updates.patches.bundle import PAYLOAD_BYTES_MAX, Bundle, BundleInvalid, pack_bundle, unpack_bundle

BUNDLES = st.builds(Bundle, st.binary(min_size=1, max_size=192), st.binary(min_size=1, max_size=500))


@given(BUNDLES)
def test_a_bundle_survives_the_link(bundle: Bundle) -> None:
    assert unpack_bundle(pack_bundle(bundle)) == bundle


@given(st.binary(max_size=300))
def test_any_bytes_are_a_bundle_in_its_one_form_or_refused(data: bytes) -> None:
    try:
        bundle = unpack_bundle(data)
    except BundleInvalid:
        return
    assert pack_bundle(bundle) == data


@given(BUNDLES, st.data())
def test_a_bundle_cut_before_its_payload_is_refused(bundle: Bundle, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, 2 + len(bundle.manifest)))
    with pytest.raises(BundleInvalid):
        unpack_bundle(pack_bundle(bundle)[:cut])


def test_the_layout_is_length_manifest_payload() -> None:
    assert pack_bundle(Bundle(b"mmm", b"pp")) == b"\x00\x03mmmpp"


@pytest.mark.parametrize(
    ("manifest", "payload", "field"),
    [
        (0, 1, "manifest: 0 bytes, must be 1..192"),
        (193, 1, "manifest: 193 bytes"),
        (1, 0, "payload: 0 bytes"),
        (1, PAYLOAD_BYTES_MAX + 1, "payload: 16777217 bytes, must be 1..16777216"),
    ],
)
def test_a_part_that_is_empty_or_too_long_is_refused_by_name(manifest: int, payload: int, field: str) -> None:
    with pytest.raises(BundleInvalid, match=field):
        pack_bundle(Bundle(bytes(manifest), bytes(payload)))
    with pytest.raises(BundleInvalid, match=field):
        unpack_bundle(manifest.to_bytes(2, "big") + bytes(manifest) + bytes(payload))


def test_the_greatest_bundle_passes() -> None:
    assert len(pack_bundle(Bundle(bytes(192), bytes(PAYLOAD_BYTES_MAX)))) == 2 + 192 + PAYLOAD_BYTES_MAX
