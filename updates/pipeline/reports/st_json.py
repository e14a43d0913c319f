"""`network_c_info.json` of ST Edge AI Core (json_schema_version 2.x, read from version 3.0.0 reports)."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from updates.pipeline.reports.types import ReportInvalid, RuntimeReport, WeightArray

SCHEMA_MAJOR = "2"
_GENERATE_AGAIN = "generate the network again with ST Edge AI Core and send its network_c_info.json"


def parse(text: str) -> dict[str, Any]:
    """Raises ReportInvalid where it is no JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReportInvalid(
            "report", f"neither a text report of ST Edge AI nor JSON ({error})", "send the tool's own file"
        ) from error
    if not isinstance(document, dict):
        raise ReportInvalid(
            "report", f"the JSON is a {type(document).__name__}, not an object", "send the tool's own file"
        )
    return document


def is_report(document: Mapping[str, Any]) -> bool:
    return "memory_footprint" in document and "json_schema_version" in document


def read(document: Mapping[str, Any]) -> RuntimeReport:
    """RAM is summed as ST does it: activations, io, kernel and toolchain RAM (older tools: extra_ram). Raises ReportInvalid."""
    version = str(document["json_schema_version"])
    if version.partition(".")[0] != SCHEMA_MAJOR:
        raise ReportInvalid(
            "json_schema_version", f"{version!r}, {SCHEMA_MAJOR}.x is understood", "use ST Edge AI Core 3 or newer"
        )
    footprint = _object(document, "memory_footprint")
    tools = _list(_object(document, "environment"), "tools", where="environment.tools")
    tool = tools[0] if tools and isinstance(tools[0], dict) else {}
    given = tool.get("input_model")
    model: dict[str, Any] = given if isinstance(given, dict) else {}
    files = model.get("model_files") or [{}]
    buffers = {one["id"]: one for one in _list(document, "buffers") if isinstance(one, dict) and "id" in one}
    weights_bytes = _size(footprint, "weights")
    weights = _weights(buffers.values())
    if weights and max(one.offset + one.size for one in weights) > weights_bytes:
        raise ReportInvalid(
            "buffers",
            f"a weight array ends after the {weights_bytes} bytes of memory_footprint.weights",
            _GENERATE_AGAIN,
        )
    nodes = [node for graph in _list(document, "graphs") for node in graph.get("nodes", [])]
    return RuntimeReport(
        runtime="stm32cubeai",
        form="relocatable" if "--relocatable" in str(tool.get("arguments", "")) else "weights",
        tool=str(tool.get("name", "ST.EdgeAI.Core")),
        tool_version=str(tool.get("version", "")),
        series=str(footprint.get("series", "")).lower(),
        model_name=str(model.get("name", "")),
        model_signature=str(files[0].get("signature", "")),
        slot_bytes=weights_bytes,
        activations_bytes=_size(footprint, "activations"),
        io_bytes=sum(_count(value, "memory_footprint.io") for value in _list(footprint, "io")),
        runtime_ram_bytes=sum(_size(footprint, key, default=0) for key in ("kernel_ram", "toolchain_ram", "extra_ram")),
        # toolchain_flash is in kernel_flash already: both equal "RT total" of the text report (three samples of 3.0.0).
        runtime_flash_bytes=_size(footprint, "kernel_flash", default=0),
        multiply_accumulates=sum(_count(node.get("macc", 0), "graphs.nodes.macc") for node in nodes),
        weights=weights,
        graph_digest=_digest(_shape_of_graph(nodes, buffers)),
        activation_digest=_digest(_scales(buffers.values(), weights=False)),
        weight_scale_digest=_digest(_scales(buffers.values(), weights=True)),
    )


def _weights(buffers: Iterable[Mapping[str, Any]]) -> tuple[WeightArray, ...]:
    found = [
        WeightArray(
            name=str(one.get("name", "")),
            offset=_count(one.get("offset_start"), "buffers.offset_start"),
            size=_count(one.get("size_bytes"), "buffers.size_bytes"),
            format=str(one.get("format", "")),
            shape=tuple(_count(size, "buffers.shape") for size in one.get("shape", [])),
        )
        for one in buffers
        if one.get("is_param")
    ]
    found.sort(key=lambda one: one.offset)
    for before, after in itertools.pairwise(found):
        if before.offset + before.size > after.offset:
            raise ReportInvalid("buffers", f"{before.name} and {after.name} overlap", _GENERATE_AGAIN)
    return tuple(found)


def _shape_of_graph(nodes: list[Any], buffers: Mapping[int, Mapping[str, Any]]) -> list[Any]:
    """What is compiled into code, without the numbers that change from one generation to the next (ids)."""

    def tensors(ids: list[int]) -> list[Any]:
        return [
            [
                one.get("format"),
                one.get("shape"),
                bool(one.get("is_param")),
                one.get("offset_start"),
                one.get("size_bytes"),
            ]
            for one in (buffers.get(key, {}) for key in ids)
        ]

    return [
        [
            node.get("type"),
            sorted((str(key), str(value)) for key, value in node.get("attributes", {}).items()),
            node.get("sw_functions", []),
            *(tensors(node.get(side, [])) for side in ("inputs", "outputs", "scratchs")),
        ]
        for node in nodes
    ]


def _scales(buffers: Iterable[Mapping[str, Any]], *, weights: bool) -> list[Any]:
    return sorted(
        [one.get("offset_start"), str(one.get("name")), one["intq"].get("scales"), one["intq"].get("offsets")]
        for one in buffers
        if one.get("intq") and bool(one.get("is_param")) is weights
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise ReportInvalid(key, "it is missing", _GENERATE_AGAIN)
    return value


def _list(document: Mapping[str, Any], key: str, *, where: str = "") -> list[Any]:
    value = document.get(key, [])
    if not isinstance(value, list):
        raise ReportInvalid(where or key, f"a {type(value).__name__}, must be a list", _GENERATE_AGAIN)
    return value


def _size(footprint: Mapping[str, Any], key: str, *, default: int | None = None) -> int:
    return _count(footprint.get(key, default), f"memory_footprint.{key}")


def _count(value: Any, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ReportInvalid(field, f"{value!r}, must be a whole number of bytes from 0", _GENERATE_AGAIN)
    return value
