"""What a firmware keeps of its SRAM, read from the map of GNU ld."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from devices.linker_map import LinkerMapInvalid, read

MAP = """\
Discarded input sections

 .bss.unused    0x00000000      0x800 main.o

Memory Configuration

Name             Origin             Length             Attributes
FLASH            0x08000000         0x00080000         xr
RAM              0x20000000         0x00020000         xrw
CCM              0x10000000         0x00004000         rw
*default*        0x00000000         0xffffffff

Linker script and memory map

LOAD main.o

.text           0x08000000      0x400
 .text.main     0x08000000      0x400 main.o

.data           0x20000000       0x40 load address 0x08000400
 .data.table    0x20000000       0x40 main.o
                0x20000000                table

.bss            0x20000040     0x59e0 load address 0x08000440
 .bss.other     0x20000040      0xbb8 main.o
                0x20000040                other
 *fill*         0x20000bf8        0x8
 .bss.tensor_arena
                0x20000c00     0x4e20 main.o

._user_heap_stack
                0x20005a20     0x1000 load address 0x08000440
                0x20006a20                . = (. + 0x1000)

.fast           0x10000000      0x100
 .fast.table    0x10000000      0x100 main.o

.debug_info     0x00000000     0x9999
"""


def test_everything_in_the_arenas_region_but_the_arena_is_reserved() -> None:
    taken = read(MAP.encode())

    assert (taken.region, taken.sram_bytes) == ("RAM", 128 * 1024)
    assert taken.arena_bytes == 0x4E20
    assert taken.reserved_bytes == 0x40 + 0x59E0 + 0x1000 - 0x4E20
    assert [one.name for one in taken.sections] == [".data", ".bss", "._user_heap_stack"]


def test_a_map_without_an_arena_needs_the_name_of_the_region() -> None:
    without = MAP.replace("tensor_arena", "buffer")

    with pytest.raises(LinkerMapInvalid, match="RAM, CCM of FLASH, RAM, CCM could be meant; name the region"):
        read(without.encode())

    taken = read(without.encode(), region="RAM")
    assert taken.arena_bytes is None
    assert taken.reserved_bytes == taken.used_bytes == 0x40 + 0x59E0 + 0x1000


def test_an_arena_of_another_name_is_found_by_it() -> None:
    renamed = MAP.replace("tensor_arena", "g_model_memory")

    assert read(renamed.encode(), arena="g_model_memory").arena_bytes == 0x4E20


def test_sections_that_share_memory_are_counted_once() -> None:
    overlaid = MAP.replace("\n.fast ", "\n.overlay        0x20000040     0x1000\n\n.fast ")

    assert read(overlaid.encode()).reserved_bytes == read(MAP.encode()).reserved_bytes


@pytest.mark.parametrize(
    ("alone", "arena_bytes"), [("", 0x4E20), ("                0x20000d00                counter\n", None)]
)
def test_an_arena_without_a_section_of_its_own_counts_only_where_it_is_alone_in_one(
    alone: str, arena_bytes: int | None
) -> None:
    shared = MAP.replace(
        " .bss.tensor_arena\n                0x20000c00     0x4e20 main.o\n",
        f" .bss           0x20000c00     0x4e20 model.o\n                0x20000c00                tensor_arena\n{alone}",
    )

    if arena_bytes is None:
        with pytest.raises(LinkerMapInvalid, match="compile with -fdata-sections"):
            read(shared.encode())
    else:
        assert read(shared.encode()).arena_bytes == arena_bytes


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("Component: ARM Compiler 6.16", {}, "map: it has no memory configuration"),
        (MAP, {"region": "DTCM"}, "region: 'DTCM' is not in the map; use one of FLASH, RAM, CCM"),
        (MAP, {"region": "CCM"}, "region: the arena does not lie in CCM"),
        (MAP.replace(".bss.other ", ".bss.a.tensor_arena 0x20000040 0xbb8 m.o\n .bss.x"), {}, "arena: 2 sections"),
    ],
)
def test_a_map_that_does_not_tell_is_refused_with_field_and_fix(
    text: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(LinkerMapInvalid) as caught:
        read(text.encode(), **options)

    assert message in str(caught.value)


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed")
def test_the_map_of_a_real_link_adds_up_to_what_size_says(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        'static char __attribute__((section(".bss.tensor_arena"), aligned(16))) tensor_arena[20000];\n'
        "char other[3000]; int table[16] = {1};\n"
        "int main(void) { return tensor_arena[(int)other[0]] + table[1]; }\n"
    )
    (tmp_path / "board.ld").write_text(
        "MEMORY { FLASH (rx): ORIGIN = 0x08000000, LENGTH = 512K RAM (xrw): ORIGIN = 0x20000000, LENGTH = 128K }\n"
        "ENTRY(main) SECTIONS { .text : { *(.text*) } > FLASH .data : { *(.data*) } > RAM AT> FLASH\n"
        ".bss : { *(.bss*) } > RAM .a_stack_with_a_long_name (NOLOAD) : { . = . + 0x1000; } > RAM }\n"
    )
    link = (
        "arm-none-eabi-gcc -mcpu=cortex-m4 -mthumb -fdata-sections -nostdlib -T board.ld -Wl,-Map=m.map main.c -o m.elf"
    )
    subprocess.run(link.split(), cwd=tmp_path, check=True, capture_output=True)
    sizes = subprocess.run(
        ["arm-none-eabi-size", "-A", "m.elf"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    rows = [line.split() for line in sizes.stdout.splitlines() if line.startswith(".")]
    in_ram = sum(int(size) for _, size, address in rows if int(address) >= 0x20000000)

    taken = read((tmp_path / "m.map").read_bytes())

    assert taken.used_bytes == in_ram
    assert (taken.region, taken.arena_bytes, taken.reserved_bytes) == ("RAM", 20000, in_ram - 20000)
