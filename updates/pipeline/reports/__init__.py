"""What the compilers of graphs say of their own output: ST Edge AI (STM32Cube.AI) and TVM, read into one shape."""

from __future__ import annotations

from updates.pipeline.reports import st_json, st_text, tvm
from updates.pipeline.reports.types import ReportInvalid, RuntimeReport

MAXIMUM_REPORT_BYTES = 16 * 1024 * 1024


def read_report(data: bytes) -> RuntimeReport:
    """A `network_c_info.json` or text report of ST Edge AI, or a `metadata.json` of TVM, told apart by content.

    Raises ReportInvalid.
    """
    if len(data) > MAXIMUM_REPORT_BYTES:
        raise ReportInvalid("report", f"{len(data)} bytes, at most {MAXIMUM_REPORT_BYTES} are read", "send one report")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReportInvalid(
            "report", f"it is not text in UTF-8 ({error})", "send the report as it was written"
        ) from error
    if st_text.is_report(text):
        return st_text.read(text)
    document = st_json.parse(text)
    return st_json.read(document) if st_json.is_report(document) else tvm.read(document)
