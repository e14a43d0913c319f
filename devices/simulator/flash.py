"""A node's flash in a file: two slots and the two journal places, mapped into memory.

A killed simulator loses nothing: the kernel keeps what was written to the mapping. Costs one descriptor a node, and the
page cache of what was touched.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import cast

from devices.agent.native import RECORD_BYTES, Flash


class FlashMismatch(ValueError):
    """The file is not the flash that the specification describes."""


class _Journal:
    """Two places, each read and replaced as a whole."""

    def __init__(self, view: memoryview) -> None:
        self._places = (view[:RECORD_BYTES], view[RECORD_BYTES:])

    def __getitem__(self, place: int) -> memoryview:
        return self._places[place]

    def __setitem__(self, place: int, record: bytes) -> None:
        self._places[place][:] = record


class FileFlash(Flash):
    """`changes` counts erases, programs and journal writes, so that digests are computed only when they may differ."""

    def __init__(self, path: Path, slot_size: int) -> None:
        """Raises FlashMismatch where the file has another size."""
        size = 2 * slot_size + 2 * RECORD_BYTES
        if path.stat().st_size != size:
            raise FlashMismatch(
                f"{path}: {path.stat().st_size} bytes, must have {size} for slot_bytes {slot_size}: "
                "use another --state directory"
            )
        with path.open("r+b") as file:
            view = memoryview(mmap.mmap(file.fileno(), size))
        slots = [view[:slot_size], view[slot_size : 2 * slot_size]]
        super().__init__(
            slot_size,
            cast("list[bytearray]", slots),
            cast("list[bytearray]", _Journal(view[2 * slot_size :])),
        )
        self.changes = 0
        self._digests: dict[tuple[int, int], tuple[int, str]] = {}

    def burn(self) -> bool:
        self.changes += 1
        return super().burn()

    def digest(self, slot: int, size: int) -> str:
        """SHA-256 over the first `size` bytes of a slot as they are now, in hex; "" for size 0."""
        changes, digest = self._digests.get((slot, size), (-1, ""))
        if changes != self.changes:
            digest = hashlib.sha256(self.slots[slot][:size]).hexdigest() if size else ""
            self._digests = {key: kept for key, kept in self._digests.items() if kept[0] == self.changes}
            self._digests[slot, size] = (self.changes, digest)
        return digest


def make_flash(path: Path, slot_size: int, image: bytes) -> None:
    """A flash file fresh from the factory: `image` in slot 0, the rest erased. Raises FlashMismatch."""
    if len(image) > slot_size:
        raise FlashMismatch(f"active image: {len(image)} bytes, the slot has {slot_size}")
    erased = 2 * slot_size + 2 * RECORD_BYTES - len(image)
    path.write_bytes(image + b"\xff" * erased)
