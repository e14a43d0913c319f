"""What firmware keeps of its SRAM, from the map file that GNU ld writes (-Wl,-Map=firmware.map).

Format: binutils' "Memory Configuration" (name, origin, length, attributes), then "Linker script and memory map", where
output sections begin in the first column and input sections are indented by one space; a long name puts address and
size on the next line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAXIMUM_MAP_BYTES = 64 * 1024 * 1024
_REGION = re.compile(r"^(\S+)\s+0x([0-9a-fA-F]+)\s+0x([0-9a-fA-F]+)(?:\s+(\S+))?\s*$", re.MULTILINE)
_SECTION = re.compile(r"^( ?)([._A-Za-z*][^\s]*)(?:\n)?\s+0x([0-9a-fA-F]+)\s+0x([0-9a-fA-F]+)(?=\s|$)", re.MULTILINE)
_FIX = "give the file that the linker wrote with -Wl,-Map=firmware.map"


class MapInvalid(ValueError):
    """`str()` is one sentence with the fix."""


@dataclass(frozen=True)
class LinkerMap:
    """ram_bytes: all writable regions together. used_bytes: of them by output sections, heap and stacks that the linker
    placed included; arena_bytes: of that by input sections with "arena" in their names, which is not reserved."""

    ram_bytes: int
    used_bytes: int
    arena_bytes: int

    @property
    def reserved_bytes(self) -> int:
        return self.used_bytes - self.arena_bytes


def read_linker_map(text: str) -> LinkerMap:
    """Raises MapInvalid."""
    _, found, rest = text.partition("Memory Configuration")
    head, placed, body = rest.partition("Linker script and memory map")
    if not found or not placed:
        raise MapInvalid(f"linker map: it has no 'Memory Configuration' and 'Linker script and memory map'; {_FIX}")
    regions = [
        (int(origin, 16), int(length, 16))
        for name, origin, length, attributes in _REGION.findall(head)
        if name != "*default*" and _is_ram(name, attributes)
    ]
    if not regions:
        raise MapInvalid(f"linker map: no region of its memory is writable RAM; {_FIX}")
    used = arena = 0
    for indent, name, address, size in _SECTION.findall(body):
        start, length = int(address, 16), int(size, 16)
        if not length or not any(origin <= start and start + length <= origin + size for origin, size in regions):
            continue
        if not indent:
            used += length
        elif "arena" in name.lower():
            arena += length
    return LinkerMap(sum(length for _, length in regions), used, arena)


def _is_ram(name: str, attributes: str) -> bool:
    """Attributes may be left out in the script; then the name must tell."""
    if attributes and not attributes.startswith("!"):
        return "w" in attributes.split("!")[0]
    return "ram" in name.lower()
