from __future__ import annotations

import pytest

from updates.pipeline.linker_map import MapInvalid, read_linker_map

MAP = """
Memory Configuration

Name             Origin             Length             Attributes
FLASH            0x0000000008000000 0x0000000000080000 xr
RAM              0x0000000020000000 0x0000000000010000 xrw
*default*        0x0000000000000000 0xffffffffffffffff

Linker script and memory map

LOAD /usr/lib/crt0.o

.text           0x0000000008000000     0x1f00
 .text          0x0000000008000000       0x60 main.o
                0x0000000008000000                main

.data           0x0000000020000000      0x100 load address 0x0000000008001f00
 .data          0x0000000020000000      0x100 main.o

.bss            0x0000000020000100     0x5a00
 .bss.tensor_arena
                0x0000000020000100     0x5000 network.o
 .bss           0x0000000020005100      0xa00 main.o

._user_heap_stack
                0x0000000020005b00      0x600

.debug_info     0x0000000000000000     0x9999
"""


def test_what_lies_in_ram_is_kept_but_for_the_arena() -> None:
    found = read_linker_map(MAP)

    assert found.ram_bytes == 0x10000
    assert found.used_bytes == 0x100 + 0x5A00 + 0x600
    assert found.arena_bytes == 0x5000
    assert found.reserved_bytes == 0x100 + 0xA00 + 0x600


def test_without_attributes_the_name_of_the_region_tells() -> None:
    assert read_linker_map(MAP.replace(" xrw", "").replace(" xr", "")).reserved_bytes == 0x100 + 0xA00 + 0x600


@pytest.mark.parametrize("text", ["", "Memory Configuration", MAP.replace("xrw", "xr"), "\0" * 100])
def test_what_is_no_map_is_refused_with_the_fix(text: str) -> None:
    with pytest.raises(MapInvalid, match="-Wl,-Map"):
        read_linker_map(text)
