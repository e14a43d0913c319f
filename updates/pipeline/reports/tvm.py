"""`metadata.json` of a TVM Model Library Format archive (versions 4 to 7: memory.functions.main)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from updates.pipeline.reports.types import ReportInvalid, RuntimeReport

_FIX = "send metadata.json from the archive that tvmc compile --output-format mlf wrote"


def read(document: Mapping[str, Any]) -> RuntimeReport:
    """One module; the workspace counts as activations. Newer files name modules, older have `memory` at the top.

    Raises ReportInvalid.
    """
    modules = document.get("modules")
    if isinstance(modules, dict):
        if len(modules) != 1:
            raise ReportInvalid(
                "modules", f"{len(modules)} modules, exactly one is read", "compile one network an archive"
            )
        name, module = next(iter(modules.items()))
    else:
        name, module = str(document.get("model_name", "")), document
    memory = module.get("memory") if isinstance(module, dict) else None
    functions = memory.get("functions") if isinstance(memory, dict) else None
    usage = functions.get("main") if isinstance(functions, dict) else None
    if not isinstance(usage, list) or not usage:
        raise ReportInvalid("memory.functions.main", "it is missing: this is no report of ST Edge AI or TVM", _FIX)
    target = module.get("target")
    return RuntimeReport(
        runtime="tvm",
        form="weights",
        tool="TVM",
        tool_version=f"MLF {document.get('version', '')}".strip(),
        series=_processor(target),
        model_name=str(module.get("model_name", name)),
        model_signature="",
        slot_bytes=sum(_size(one, "constants_size_bytes") for one in usage),
        activations_bytes=sum(_size(one, "workspace_size_bytes") for one in usage),
        io_bytes=sum(_size(one, "io_size_bytes") for one in usage),
        runtime_ram_bytes=0,
        runtime_flash_bytes=0,
    )


def _processor(target: Any) -> str:
    """`-mcpu` of the target strings, empty where there is none."""
    text = " ".join(str(value) for value in (target.values() if isinstance(target, dict) else target or ()))
    _, found, rest = text.partition("-mcpu=")
    return rest.split()[0].strip("'\"],") if found and rest.split() else ""


def _size(usage: object, key: str) -> int:
    value = usage.get(key, 0) if isinstance(usage, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ReportInvalid(f"memory.functions.main.{key}", f"{value!r}, must be a whole number of bytes from 0", _FIX)
    return value
