"""Sizes of what other patchers make of a pair; those that are not installed (requirements-bench.txt) are left out."""

from __future__ import annotations

import importlib.util
import io
import lzma
import tempfile
from collections.abc import Callable
from pathlib import Path

import bsdiff4

Peer = Callable[[bytes, bytes], int]


def absent() -> list[str]:
    """Names of the packages that are missing."""
    return [name for name in ("detools", "hdiffpatch", "zstandard") if importlib.util.find_spec(name) is None]


def microcontroller_peers() -> dict[str, Peer]:
    """Those whose decoder runs in some KB of RAM."""
    peers: dict[str, Peer] = {}
    if importlib.util.find_spec("detools") is not None:
        peers["detools crle"] = lambda old, new: _detools(old, new, "crle")
        for window, ahead in ((8, 4), (10, 4), (10, 8), (12, 5)):
            peers[f"detools heatshrink {window}"] = _heatshrink(window, ahead)
        peers["detools hdiffpatch crle"] = lambda old, new: _detools_hdiffpatch(old, new, "crle")
        peers["detools hdiffpatch heatshrink"] = lambda old, new: _detools_hdiffpatch(old, new, "heatshrink")
    if importlib.util.find_spec("hdiffpatch") is not None:
        import hdiffpatch

        for name, settings in {
            "tamp 1 KB": hdiffpatch.TampConfig(window=10),
            "tamp 4 KB": hdiffpatch.TampConfig(window=12),
            "tinyuz 1 KB": hdiffpatch.TuzConfig(dict_size=1024),
            "tinyuz 4 KB": hdiffpatch.TuzConfig(dict_size=4096),
        }.items():
            peers[f"HDiffPatch lite {name}"] = _lite(settings)
    return peers


def other_peers() -> dict[str, Peer]:
    """Those that want more memory than a node has."""
    peers: dict[str, Peer] = {
        "bsdiff4": lambda old, new: len(bsdiff4.diff(old, new)),
        "xz of the image": lambda old, new: xz(new),
    }
    if importlib.util.find_spec("zstandard") is not None:
        peers["zstd --patch-from"] = _zstd
    return peers


def xz(data: bytes) -> int:
    """The smaller of xz's LZMA with and without its container."""
    settings = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return min(len(lzma.compress(data, lzma.FORMAT_RAW, filters=settings)), len(lzma.compress(data, preset=9)))


def _detools(old: bytes, new: bytes, compression: str, **settings: int) -> int:
    import detools

    out = io.BytesIO()
    detools.create_patch(io.BytesIO(old), io.BytesIO(new), out, compression=compression, **settings)
    return len(out.getvalue())


def _heatshrink(window: int, ahead: int) -> Peer:
    settings = {"heatshrink_window_sz2": window, "heatshrink_lookahead_sz2": ahead}
    return lambda old, new: _detools(old, new, "heatshrink", **settings)


def _detools_hdiffpatch(old: bytes, new: bytes, compression: str) -> int:
    import detools

    with tempfile.TemporaryDirectory() as scratch:
        before, after, patch = (Path(scratch) / name for name in ("old", "new", "patch"))
        before.write_bytes(old)
        after.write_bytes(new)
        with before.open("rb") as a, after.open("rb") as b, patch.open("wb") as out:
            detools.create_patch(a, b, out, compression=compression, patch_type="hdiffpatch", algorithm="hdiffpatch")
        return patch.stat().st_size


def _lite(settings: object) -> Peer:
    import hdiffpatch

    return lambda old, new: len(hdiffpatch.diff_lite(old, new, compression=settings))


def _zstd(old: bytes, new: bytes) -> int:
    import zstandard

    size = len(old) + len(new)
    base = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    settings = zstandard.ZstdCompressionParameters.from_level(
        22, source_size=size, dict_size=len(old), window_log=27, enable_ldm=True, write_content_size=True
    )
    return len(zstandard.ZstdCompressor(dict_data=base, compression_params=settings).compress(new))
