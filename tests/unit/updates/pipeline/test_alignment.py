from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.unit.updates.pipeline.models import convolution_model, request
from updates.pipeline import judge, post_pass
from updates.pipeline.build import build
from updates.pipeline.types import Image, Refused, TargetClass

pytestmark = pytest.mark.usefixtures("stages_run_once")

# Less than 16 bytes give the bytes of 16.
ALIGNMENTS = (16, 32, 64)


@cache
def images() -> dict[int, Image]:
    targets = tuple(TargetClass(alignment=alignment) for alignment in ALIGNMENTS)
    built = build(request(convolution_model(), targets=targets), lambda stage, fraction: None)
    return {image.target.alignment: image for image in built.images}


@pytest.mark.parametrize("alignment", (4, 8, *ALIGNMENTS))
def test_every_buffer_lies_on_its_alignment(alignment):
    assert post_pass.misaligned_buffers(images()[max(16, alignment)].data, alignment) == []


def test_16_bytes_are_not_a_cache_line_by_chance():
    assert post_pass.misaligned_buffers(images()[16].data, 64) != []


def test_alignment_changes_no_output():
    assert len({image.self_test_digest for image in images().values()}) == 1
    assert judge.minimum_arena(images()[64].data) == images()[16].arena_bytes


def test_nothing_is_lost_or_added_but_padding():
    narrow, wide = (post_pass.unpack(images()[alignment].data) for alignment in (16, 64))

    for one, other in zip(narrow.buffers, wide.buffers, strict=True):
        assert (one.data is None) == (other.data is None)
        assert one.data is None or bytes(one.data) == bytes(other.data)
    assert 0 < len(images()[64].data) - len(images()[16].data) < 64 * len(wide.buffers)


@pytest.mark.parametrize("alignment", [0, 12, 128])
def test_another_alignment_is_refused_by_its_number(alignment):
    with pytest.raises(Refused) as caught:
        post_pass.post_pass(images()[16].data, alignment=alignment)

    assert (caught.value.field, str(alignment) in caught.value.message) == ("targets.alignment", True)


def test_another_process_with_more_threads_and_another_hash_seed_gives_the_same_bytes():
    program = (
        "from tests.unit.updates.pipeline.models import convolution_model, request\n"
        "from updates.pipeline.build import build\n"
        "print(build(request(convolution_model()), lambda stage, done: None).images[0].digest)"
    )
    threads = {"OMP_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": "8", "PYTHONHASHSEED": "7", "LANG": "tr_TR.UTF-8"}
    other = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | threads | {"OPENBLAS_CORETYPE": "HASWELL"},
        cwd=Path(__file__).resolve().parents[4],
        capture_output=True,
        text=True,
        check=True,
    )

    assert other.stdout.split() == [images()[16].digest]
