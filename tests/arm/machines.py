"""Builds the decoder for Cortex-M cores with Debian's gcc-arm-none-eabi and runs it in QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
AGENT = HERE.parents[1] / "devices/agent"
DECODER = ("patch.c", "patch_model.c", "patch_weights.c")
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
_HARD_FLOAT = ("-mfloat-abi=hard",)


@dataclass(frozen=True)
class Machine:
    """A machine of QEMU 7.2 with a Cortex-M core, and where its code and data go."""

    name: str
    core: tuple[str, ...]
    code: int = 0
    ram: int = 0x2000_0000


MACHINES = {
    "Cortex-M3": Machine("mps2-an385", ("-mcpu=cortex-m3",)),
    "Cortex-M4F": Machine("mps2-an386", ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", *_HARD_FLOAT)),
    "Cortex-M7": Machine("mps2-an500", ("-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", *_HARD_FLOAT)),
    "Cortex-M33": Machine(
        "mps2-an505", ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", *_HARD_FLOAT), 0x1000_0000, 0x3800_0000
    ),
}


@dataclass(frozen=True)
class Run:
    """`status` is mf_patch_status; `instructions` exact under -icount; `stack`: bytes of the decoder, painted."""

    status: int
    size: int
    digest: bytes
    instructions: int
    stack: int


def missing() -> str | None:
    """What is not installed, for a test to say why it is skipped."""
    absent = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    return f"needs {' and '.join(absent)} (Debian: gcc-arm-none-eabi qemu-system-arm)" if absent else None


def compile_options(machine: Machine, *, only_s: bool) -> list[str]:
    """Those that the code size is stated for."""
    options = [
        "-std=c99",
        "-Os",
        "-mthumb",
        "-ffreestanding",
        "-ffunction-sections",
        "-ffp-contract=off",
        *machine.core,
    ]
    return [*options, "-DMF_PATCH_ONLY_S"] if only_s else options


def code_bytes(scratch: Path, machine: Machine, *, only_s: bool) -> int:
    """Code and tables of the decoder."""
    total = 0
    for source in DECODER:
        target = scratch / f"{source}.o"
        options = compile_options(machine, only_s=only_s)
        subprocess.run([COMPILER, *options, "-c", str(AGENT / source), "-o", str(target)], check=True)
        sizes = subprocess.run(["arm-none-eabi-size", str(target)], check=True, capture_output=True, text=True).stdout
        text, data = sizes.splitlines()[1].split()[:2]
        total += int(text) + int(data)
    return total


def decode_on(machine: Machine, base: bytes, patch: bytes, scratch: Path, *, only_s: bool = False) -> Run:
    """Decode on the core; takes about a second for 20 KB."""
    (scratch / "base").write_bytes(base)
    (scratch / "patch").write_bytes(patch)
    names = "".join(
        f'.global {name}_begin, {name}_end\n{name}_begin: .incbin "{scratch / name}"\n{name}_end:\n'
        for name in ("base", "patch")
    )
    (scratch / "images.s").write_text(f".section .rodata\n{names}")
    script = subprocess.run(
        [COMPILER, "-E", "-P", "-x", "c", f"-DCODE={machine.code}", f"-DRAM={machine.ram}", str(HERE / "board.ld")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (scratch / "board.ld").write_text(script)
    sources = [*(AGENT / name for name in (*DECODER, "sha256.c")), HERE / "board.c", scratch / "images.s"]
    options = [*compile_options(machine, only_s=only_s), f"-I{AGENT}", "-nostdlib", "-fno-builtin"]
    elf = scratch / "board.elf"
    command = [COMPILER, *options, *map(str, sources), "-lgcc", "-T", str(scratch / "board.ld"), "-o", str(elf)]
    subprocess.run(command, check=True)
    emulator = [EMULATOR, "-M", machine.name, "-nographic", "-monitor", "none", "-serial", "none", "-icount", "shift=5"]
    semihosting = ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]
    run = subprocess.run([*emulator, *semihosting], check=False, capture_output=True, text=True, timeout=240)
    said = run.stdout + run.stderr

    def number(name: str) -> int:
        found = re.search(rf"^{name} ([0-9a-f]+)$", said, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"{machine.name}: no {name} in what it said: {said[-500:]!r}")
        return int(found[1], 16)

    digest = bytes(int(byte, 16) for byte in re.findall(r"^digest ([0-9a-f]{2})$", said, re.MULTILINE))
    # 2^5 ns an instruction, and SysTick at 25 MHz.
    return Run(number("status"), number("size"), digest, number("ticks") * 40 // 32, number("stack"))
