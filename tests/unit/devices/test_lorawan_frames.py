"""Port 26 beside the reports of `devices.wire`."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.links.lorawan.frames import CommandAnswer, DigestPart, FrameError, Report, join_digest, read_frame

DIGEST = hashlib.sha256(b"image").digest()
OTHER = hashlib.sha256(b"other").digest()


def parts(digest: bytes, room: int) -> list[bytes]:
    pieces = [digest[at : at + room] for at in range(0, len(digest), room)] or [b""]
    return [bytes([0x30 | index, len(pieces)]) + piece for index, piece in enumerate(pieces)]


@pytest.mark.parametrize("room", [32, 16, 9, 4])
def test_a_digest_comes_whole_or_in_parts(room: int) -> None:
    read = [read_frame(part) for part in parts(DIGEST, room)]
    assert all(isinstance(part, DigestPart) for part in read)
    found = {part.index: (100 + part.index, part.piece) for part in read if isinstance(part, DigestPart)}
    assert join_digest(len(read), found) == DIGEST


def test_no_piece_means_no_image() -> None:
    assert read_frame(bytes.fromhex("3001")) == DigestPart(0, 1, b"")
    assert join_digest(1, {0: (5, b"")}) == b""


def test_a_digest_that_lacks_a_part_is_none() -> None:
    assert join_digest(2, {1: (5, DIGEST[16:])}) is None


def test_parts_of_an_earlier_digest_never_make_one_with_those_of_a_later() -> None:
    """Sent: old 0, old 1, report, new 0, new 1; whichever were lost, halves of two are not put together."""
    old = {0: (10, OTHER[:16]), 1: (11, OTHER[16:])}
    new = {0: (13, DIGEST[:16]), 1: (14, DIGEST[16:])}
    assert join_digest(2, {0: old[0], 1: new[1]}) is None
    assert join_digest(2, {0: new[0], 1: old[1]}) is None
    assert join_digest(2, new) == DIGEST


@given(count=st.integers(2, 8), data=st.data())
def test_no_mixture_of_two_digests_is_ever_taken(count: int, data: st.DataObject) -> None:
    room = -(-32 // count)
    pieces = [DIGEST[at : at + room] for at in range(0, 32, room)]
    count = len(pieces)
    choice = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    later = count + 1 + data.draw(st.integers(0, 50))
    mixed = {at: (100 + at + (later if new else 0), pieces[at]) for at, new in enumerate(choice)}
    assert (join_digest(count, mixed) is None) == (len(set(choice)) > 1)


def test_a_frame_between_two_parts_does_no_harm() -> None:
    assert join_digest(2, {0: (5, DIGEST[:16]), 1: (7, DIGEST[16:])}) == DIGEST


def test_a_digest_of_another_length_is_none() -> None:
    assert join_digest(1, {0: (5, DIGEST[:31])}) is None


def test_a_command_answer_names_the_command_and_the_cause() -> None:
    assert read_frame(bytes.fromhex("400111")) == CommandAnswer(1, 17)


def test_reports_are_passed_on_as_they_are() -> None:
    assert read_frame(b"\x14" + bytes(10)) == Report(b"\x14" + bytes(10), True)
    assert read_frame(b"\x20\x01\x01abc") == Report(b"\x20\x01\x01abc", False)


@pytest.mark.parametrize("data", ["", "00", "50", "30", "3109", "3202", "4001", "40010000", "30" + "01" + "00" * 33])
def test_broken_frames_are_refused(data: str) -> None:
    with pytest.raises(FrameError):
        read_frame(bytes.fromhex(data))
