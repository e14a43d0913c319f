"""The text report of `stedgeai generate` (and of stm32ai before it), for weights blobs and relocatable binaries."""

from __future__ import annotations

import re

from updates.pipeline.reports.types import ReportInvalid, RuntimeReport

_TOOL = re.compile(
    r"^\s*(ST Edge AI Core|STM?32Cube\.?AI|Neural Network Tools for STM32\w*)\s+v([\w.+-]+)",
    re.MULTILINE | re.IGNORECASE,
)
_FIX = "send the whole text report of `stedgeai generate`"
_BYTES = r"([\d,]+)(?:\s*B\b)?"


def is_report(text: str) -> bool:
    return _TOOL.search(text[:4000]) is not None


def read(text: str) -> RuntimeReport:
    """RAM as the report's own line `ram (total)` gives it, and what the run-time's objects keep. Raises ReportInvalid."""
    tool = _TOOL.search(text[:4000])
    if tool is None:
        raise ReportInvalid("report", "no line names ST Edge AI and its version", _FIX)
    binary = _number(text, r"binary file size\s*[:=]\s*" + _BYTES)
    weights = _number(text, r"^weights \(ro\)\s*:\s*" + _BYTES)
    activations = _number(text, r"^activations \(rw\)\s*:\s*" + _BYTES)
    if weights is None or activations is None:
        missing = "weights (ro)" if weights is None else "activations (rw)"
        raise ReportInvalid(missing, "the report has no such line", _FIX)
    # "ram (total) : 1,444 B (1.41 KiB) = 1,444 + 0 + 0": activations, then inputs and outputs that lie outside of them.
    parts = re.search(r"^ram \(total\)\s*:.*=\s*([\d,+ ]+)$", text, re.MULTILINE)
    io_bytes = sum(int(part.replace(",", "")) for part in parts[1].split("+")[1:]) if parts else 0
    # "Requested memory size by section": text, rodata, data, bss of the run-time's objects; data is in both memories.
    sections = re.search(r"^\s*RT total\*{0,2}\s+([\d,]+)\s+([\d,]+)\s+([\d,]+)\s+([\d,]+)\s*$", text, re.MULTILINE)
    code, constants, data, zeroed = (
        (int(part.replace(",", "")) for part in sections.groups()) if sections else (0, 0, 0, 0)
    )
    separate = _number(text, r"params file size\s*[:=]\s*" + _BYTES) or 0
    return RuntimeReport(
        runtime="stm32cubeai",
        form="weights" if binary is None else "relocatable",
        tool=tool[1],
        tool_version=tool[2],
        series=_word(text, r"^target/series\s*:\s*(\S+)").lower(),
        model_name=_word(text, r"^model_name\s*:\s*(\S+)"),
        model_signature=_word(text, r"^model_hash\s*:\s*(\S+)"),
        slot_bytes=weights if binary is None else binary + separate,
        activations_bytes=activations,
        io_bytes=io_bytes,
        runtime_ram_bytes=data + zeroed,
        runtime_flash_bytes=code + constants + data,
        multiply_accumulates=_number(text, r"^macc\s*:\s*" + _BYTES),
    )


def _number(text: str, pattern: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE | re.IGNORECASE)
    return int(found[1].replace(",", "")) if found else None


def _word(text: str, pattern: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""
