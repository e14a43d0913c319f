from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from devices.simulator.spec import SpecInvalid, read_spec

IMAGE = b"an image"
DIGEST = hashlib.sha256(IMAGE).hexdigest()


def write(directory: Path, **node: Any) -> Path:
    (directory / "image.bin").write_bytes(IMAGE)
    fields = {"endpoint": "n", "class_hash": "00000000", "slot_bytes": 64, "active": DIGEST, **node}
    document = {"public_keys": ["00" * 32], "images": {DIGEST: "image.bin"}, "nodes": [fields]}
    path = directory / "spec.json"
    path.write_text(json.dumps(document))
    return path


def test_a_specification_is_read_with_its_images(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, behaviour="liar", loss=0.1))
    assert spec.images == {DIGEST: IMAGE}
    assert (spec.nodes[0].behaviour, spec.nodes[0].radio.loss) == ("liar", 0.1)


@pytest.mark.parametrize(
    "node",
    [
        {"behaviour": "lazy"},
        {"loss": 1.5},
        {"active": "00"},
        {"link": "pigeon"},
        {"lwm2m": "2.0"},
        {"block_bytes": 500},
        {"wake_interval_s": 0},
        {"colour": "red"},
        {"class_hash": "xyz"},
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, node: dict[str, Any]) -> None:
    with pytest.raises(SpecInvalid, match=next(iter(node)) if node != {"class_hash": "xyz"} else "hexadecimal"):
        read_spec(write(tmp_path, **node))


def test_an_image_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "image.bin").write_bytes(b"other")
    with pytest.raises(SpecInvalid, match="SHA-256"):
        read_spec(path)
