"""What a firmware keeps of its SRAM, from the map that GNU ld writes with `-Wl,-Map=FILE` (binutils 2.x).

"Reserved" is everything that the linker placed in the region but the tensor arena: data, zeroed data, heap and stacks
where the linker script gives them sections. Memory that the firmware takes without a section is not in the map.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAXIMUM_MAP_BYTES = 64 * 1024 * 1024
ARENA_NAME = "tensor_arena"
_FIX_TOOL = "link with GNU ld and -Wl,-Map=firmware.map, and send that file"
_REGION = re.compile(r"^(\S+)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?:\s+([a-z!]+))?\s*$", re.IGNORECASE)
_OUTPUT = re.compile(r"^([.\w]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)(?:\s+load address.*)?\s*$", re.IGNORECASE)
_INPUT = re.compile(r"^ ([.\w]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+\S", re.IGNORECASE)
_SYMBOL = re.compile(r"^\s{2,}0x([0-9a-f]+)\s+([A-Za-z_]\w*)\s*$", re.IGNORECASE)
_NAME_ALONE = re.compile(r"^ ?[.\w]\S*$")


class LinkerMapInvalid(ValueError):
    """A map that cannot be used: `field` is where, `fix` what to do. `str()` is one sentence."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(f"{field}: {message}; {fix}.")
        self.field, self.message, self.fix = field, message, fix


@dataclass(frozen=True)
class Region:
    """One line of the map's memory configuration. Addresses and sizes are bytes."""

    name: str
    origin: int
    length: int
    attributes: str

    @property
    def writable(self) -> bool:
        return "w" in self.attributes.lower()

    def holds(self, address: int) -> bool:
        return self.origin <= address < self.origin + self.length


@dataclass(frozen=True)
class Placed:
    """A section, or a symbol with the size of the section that holds nothing else."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class MemoryTaken:
    """Of one region, in bytes. `arena_bytes` is None where the map has no arena; sections are those of the output."""

    region: str
    sram_bytes: int
    used_bytes: int
    arena_bytes: int | None
    sections: tuple[Placed, ...]

    @property
    def reserved_bytes(self) -> int:
        return self.used_bytes - (self.arena_bytes or 0)


def read(data: bytes, *, region: str = "", arena: str = ARENA_NAME) -> MemoryTaken:
    """`region`: which memory to look at; empty: the one that holds the arena, else the only writable one. `arena`: name of
    the array that the interpreter gets. Raises LinkerMapInvalid."""
    if len(data) > MAXIMUM_MAP_BYTES:
        raise LinkerMapInvalid("map", f"{len(data)} bytes, at most {MAXIMUM_MAP_BYTES} are read", "send one map")
    head, found, body = data.decode("utf-8", "replace").partition("\nLinker script and memory map")
    _, configured, table = head.partition("\nMemory Configuration")
    if not found or not configured:
        raise LinkerMapInvalid("map", "it has no memory configuration and memory map of GNU ld", _FIX_TOOL)
    regions = [one for one in _regions(table) if one.length]
    lines = list(_joined(body.splitlines()))
    arena_at = _arena(lines, arena)
    chosen = _region(regions, region, arena_at)
    sections = [one for one in _matches(_OUTPUT, lines) if one.size and chosen.holds(one.address)]
    return MemoryTaken(
        region=chosen.name,
        sram_bytes=chosen.length,
        used_bytes=_covered(sections),
        arena_bytes=arena_at.size if arena_at else None,
        sections=tuple(sections),
    )


def _regions(table: str) -> Iterator[Region]:
    for line in table.splitlines():
        if (match := _REGION.match(line)) and match[1] != "*default*":
            yield Region(match[1], int(match[2], 16), int(match[3], 16), match[4] or "")


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """A name too long for its column stands on a line of its own; its numbers follow on the next."""
    name = ""
    for line in lines:
        if name and re.match(r"^\s+0x", line):
            yield f"{name} {line.strip()}"
            name = ""
            continue
        name = line if _NAME_ALONE.match(line) else ""
        if not name:
            yield line


def _matches(pattern: re.Pattern[str], lines: Iterable[str]) -> Iterator[Placed]:
    for line in lines:
        if match := pattern.match(line):
            yield Placed(match[1], int(match[2], 16), int(match[3], 16))


def _arena(lines: list[str], name: str) -> Placed | None:
    """The section of its own that `-fdata-sections` gives it; else the section at whose address its symbol stands alone."""
    inputs = [one for one in _matches(_INPUT, lines) if one.size]
    own = [one for one in inputs if name in re.split(r"[.]", one.name)]
    if len(own) > 1:
        raise LinkerMapInvalid("arena", f"{len(own)} sections are named {name}", "name the one that is meant")
    if own:
        return own[0]
    symbols = [(int(match[1], 16), match[2]) for line in lines if (match := _SYMBOL.match(line))]
    address = next((address for address, symbol in symbols if symbol == name), None)
    if address is None:
        return None
    around = next((one for one in inputs if one.address <= address < one.address + one.size), None)
    if around and sum(around.address <= other < around.address + around.size for other, _ in symbols) == 1:
        return Placed(name, around.address, around.size)
    raise LinkerMapInvalid(
        "arena",
        f"{name} shares its section with other data, so the map does not tell its size",
        "compile with -fdata-sections",
    )


def _region(regions: list[Region], wanted: str, arena: Placed | None) -> Region:
    names = ", ".join(one.name for one in regions) or "none"
    if wanted:
        chosen = [one for one in regions if one.name == wanted]
        if not chosen:
            raise LinkerMapInvalid("region", f"{wanted!r} is not in the map", f"use one of {names}")
        if arena and not chosen[0].holds(arena.address):
            raise LinkerMapInvalid("region", f"the arena does not lie in {wanted}", "name the region that holds it")
        return chosen[0]
    fitting = [one for one in regions if (one.holds(arena.address) if arena else one.writable)]
    if len(fitting) != 1:
        found = ", ".join(one.name for one in fitting) or "none"
        raise LinkerMapInvalid("region", f"{found} of {names} could be meant", "name the region of the SRAM")
    return fitting[0]


def _covered(sections: Iterable[Placed]) -> int:
    """Bytes under any of them: overlays share theirs."""
    total, end = 0, 0
    for one in sorted(sections, key=lambda one: one.address):
        begin = max(one.address, end)
        total += max(0, one.address + one.size - begin)
        end = max(end, one.address + one.size)
    return total
