"""Weight patches against other patchers on pairs made by _patch_corpus.py, and what decoding one asks of a Cortex-M4F.

Peers come from requirements-bench.txt. N is how many pairs to take (all 66).
"""

from __future__ import annotations

import hashlib
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.agent.patch_codec import Profile, decode, state_bytes
from tests import networks
from tests.arm import machines
from tests.benchmarks._patch_corpus import Pair, corpus
from tests.benchmarks._patch_peers import absent, microcontroller_peers, other_peers, xz
from tests.benchmarks._slot_images import build_image
from updates.patches.weight_patch import encode_patch

LIMITS = {
    "pairs_worse_than_peer": ("==", 0.0),
    "geomean_vs_best_mcu_peer": (">=", 2.3),
    "ratio_to_order0_entropy": ("<=", 0.76),
    "unrelated_to_xz": ("<=", 1.03),
    "encode_300k_s": ("<=", 5.0),
    "decode_300k_s": ("<=", 1.0),
    "decoder_code_bytes_l": ("<=", 6144.0),
    "decoder_code_bytes_s": ("<=", 2560.0),
    "decoder_ram_bytes_l": ("<=", 8192.0),
    "decoder_ram_bytes_s": ("<=", 1024.0),
}


@dataclass(frozen=True)
class Row:
    """Sizes in bytes; `entropy` of the change, order 0, summed over the tensors."""

    pair: Pair
    large: int
    small: int
    mcu: dict[str, int]
    others: dict[str, int]
    entropy: float
    encode_s: float
    decode_s: float


def run(n: int | None = None) -> dict[str, float]:
    pairs = corpus()[: n or None]
    if absent():
        print(
            f"not installed, left out: {', '.join(absent())} (pip install -r requirements-bench.txt)", file=sys.stderr
        )
    rows = []
    for index, pair in enumerate(pairs):
        rows.append(_measure(pair))
        print(f"\r{index + 1} of {len(pairs)} pairs", end="", file=sys.stderr)
    print(file=sys.stderr)
    print(_table(rows))
    return {**_sizes(rows), **_times(rows), **_unrelated(pairs), **_on_cortex_m4(pairs)}


def _measure(pair: Pair) -> Row:
    layouts = pair.old_layout, pair.new_layout
    began = time.process_time()
    large = encode_patch(pair.old, pair.new, profile=Profile.L, layouts=layouts).data
    encoded = time.process_time()
    if decode(pair.old, large) != pair.new:
        raise RuntimeError(f"{pair.name}: decodes to other bytes")
    decoded = time.process_time()
    small = encode_patch(pair.old, pair.new, profile=Profile.S, layouts=layouts).data
    mcu = {name: peer(pair.old, pair.new) for name, peer in microcontroller_peers().items()}
    others = {name: peer(pair.old, pair.new) for name, peer in other_peers().items()}
    return Row(pair, len(large), len(small), mcu, others, _entropy(pair), encoded - began, decoded - encoded)


def _entropy(pair: Pair) -> float:
    """Bytes of the order-0 entropy of new - old, tensor by tensor; where a tensor has no like, of the new bytes."""
    known = {tensor.shape: tensor for tensor in pair.old_layout}
    same = [t.shape for t in pair.old_layout] == [t.shape for t in pair.new_layout]
    total, covered = 0.0, bytearray(len(pair.new))
    for index, tensor in enumerate(pair.new_layout):
        new = np.frombuffer(pair.new, np.uint8, tensor.size, tensor.offset)
        before = pair.old_layout[index] if same else known.get(tensor.shape)
        old = np.frombuffer(pair.old, np.uint8, tensor.size, before.offset) if before else np.uint8(0)
        total += _bits(new - old)
        covered[tensor.offset : tensor.offset + tensor.size] = b"\1" * tensor.size
    rest = [at for at, seen in enumerate(covered) if not seen and at < len(pair.old)]
    change = np.array([(pair.new[at] - pair.old[at]) % 256 for at in rest], np.uint8)
    return (total + (_bits(change) if rest else 0.0)) / 8


def _bits(values: np.ndarray) -> float:
    counts = np.bincount(values.ravel(), minlength=256)
    shares = counts[counts > 0] / values.size
    return float(-(shares * np.log2(shares)).sum() * values.size)


def _mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def _sizes(rows: Sequence[Row]) -> dict[str, float]:
    tuned = [row for row in rows if row.pair.kind != "retrain"]
    figures = {"ratio_to_order0_entropy": _mean([row.large / row.entropy for row in tuned])}
    figures["geomean_vs_bsdiff4"] = _mean([row.others["bsdiff4"] / row.large for row in tuned])
    if not absent():
        figures["pairs_worse_than_peer"] = float(sum(row.large > min(row.mcu.values()) for row in rows))
        figures["geomean_vs_best_mcu_peer"] = _mean([min(row.mcu.values()) / row.large for row in tuned])
        figures["geomean_vs_best_mcu_peer_s"] = _mean([min(row.mcu.values()) / row.small for row in tuned])
    return figures


def _times(rows: Sequence[Row]) -> dict[str, float]:
    """CPU time of the slowest, scaled to 300 KB."""
    return {
        "encode_300k_s": max(
            row.encode_s * 300_000 / len(row.pair.new) for row in rows if len(row.pair.new) > 200_000 or len(rows) < 20
        ),
        "decode_300k_s": max(
            row.decode_s * 300_000 / len(row.pair.new) for row in rows if len(row.pair.new) > 200_000 or len(rows) < 20
        ),
    }


def _unrelated(pairs: Sequence[Pair]) -> dict[str, float]:
    """Between networks that have nothing in common: the worst patch against xz of the image, of raw weight images and of
    .tflite files, of which up to two thirds are not weights."""
    raw = list({pair.name.split("_")[0]: pair.old for pair in pairs}.values())
    files = []
    for make in (networks.fc_autoencoder, networks.ds_cnn, networks.residual_cnn, networks.mobilenet):
        network = make()
        with tempfile.TemporaryDirectory() as scratch:
            build_image(Path(scratch), network.onnx, network.inputs(32, seed=1))
            files.append((Path(scratch) / "image.tflite").read_bytes())
    worst = 0.0
    for images in (raw, files):
        for base, target in zip(images, images[1:] + images[:1], strict=True):
            if base is not target:
                size = len(encode_patch(base, target, profile=Profile.L).data)
                print(f"unrelated: {len(target)} bytes, patch {size}, {size / xz(target):.3f} of xz")
                worst = max(worst, size / xz(target))
    return {"unrelated_to_xz": worst}


def _on_cortex_m4(pairs: Sequence[Pair]) -> dict[str, float]:
    figures: dict[str, float] = {}
    if (reason := machines.missing()) is not None:
        print(f"code size and instructions left out: {reason}", file=sys.stderr)
        return figures
    machine, names = (
        machines.MACHINES["Cortex-M4F"],
        ("kws_head_frozen", "kws_sgd_frozen", "kws_heavy_frozen", "kws_retrain_frozen"),
    )
    print(
        f"\n{'on a Cortex-M4F, by QEMU -icount':<34}{'profile':>8}{'patch':>8}{'instructions a byte':>21}{'stack':>7}"
    )
    deepest = dict.fromkeys(Profile, 0)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for profile in Profile:
            only_s = profile is Profile.S
            figures[f"decoder_code_bytes_{profile.name.lower()}"] = float(
                machines.code_bytes(place, machine, only_s=only_s)
            )
            for pair in (pair for pair in pairs if pair.name in names):
                layouts = pair.old_layout, pair.new_layout
                patch = encode_patch(pair.old, pair.new, profile=profile, layouts=layouts).data
                run = machines.decode_on(machine, pair.old, patch, place, only_s=only_s)
                if run.digest != hashlib.sha256(pair.new).digest():
                    raise RuntimeError(f"{pair.name}: the Cortex-M4F decodes to other bytes")
                each = run.instructions / len(pair.new)
                print(f"{pair.name:<34}{profile.name:>8}{len(patch):>8}{each:>21.0f}{run.stack:>7}")
                deepest[profile] = max(deepest[profile], run.stack)
    for profile, stack in deepest.items():
        if stack:
            figures[f"decoder_ram_bytes_{profile.name.lower()}"] = float(state_bytes(profile) + stack)
    return figures


def _table(rows: Sequence[Row]) -> str:
    """A row a pair, then the geometric means by kind."""
    columns = ("bsdiff4", "zstd", "xz", "entropy")
    heads = "".join(f"{name:>9}" for name in columns)
    lines = [f"{'pair':<28}{'image':>8}{'L':>8}{'S':>8}{'best MCU peer':>40}{heads}{'L/ent.':>8}{'x peer':>8}"]
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[row.pair.kind].append(row)
        name, best = min(row.mcu.items(), key=lambda item: item[1]) if row.mcu else ("none installed", 0)
        others = [row.others.get(name, 0) for name in ("bsdiff4", "zstd --patch-from", "xz of the image")]
        cells = "".join(f"{size:>9}" for size in (*others, round(row.entropy)))
        lines.append(
            f"{row.pair.name:<28}{len(row.pair.new):>8}{row.large:>8}{row.small:>8}{name:>31} {best:>8}{cells}"
            f"{row.large / row.entropy:>8.2f}{best / row.large:>8.2f}"
        )
    lines += ["", f"{'kind':<12}{'pairs':>6}{'x best MCU peer, L':>20}{'S':>8}{'x bsdiff4':>11}{'L / entropy':>13}"]
    for kind, group in by_kind.items():
        peers = [(min(row.mcu.values()), row) for row in group if row.mcu]
        lines.append(
            f"{kind:<12}{len(group):>6}{_mean([best / row.large for best, row in peers]):>20.2f}"
            f"{_mean([best / row.small for best, row in peers]):>8.2f}"
            f"{_mean([row.others['bsdiff4'] / row.large for row in group]):>11.2f}"
            f"{_mean([row.large / row.entropy for row in group]):>13.2f}"
        )
    return "\n".join(lines)
