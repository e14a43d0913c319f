"""Nodes as CSV: which columns there are, and cells that a spreadsheet cannot mistake for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

MAXIMUM_BYTES = 8 * 1024 * 1024
MAXIMUM_ROWS = 50_000
# A spreadsheet takes a cell that begins so for a formula. The apostrophe that guards such a cell is itself guarded.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


@dataclass(frozen=True)
class Column:
    name: str
    meaning: str
    example: str = ""
    required: bool = False
    read_only: bool = False


COLUMNS = [
    Column(
        "endpoint", "LwM2M endpoint name, or the DevEUI of a LoRaWAN node: 16 hex digits", "press-0042", required=True
    ),
    Column("link", "nbiot or lorawan", "nbiot", required=True),
    Column("profile", "name of a hardware profile that is known here", "stm32l4", required=True),
    Column("firmware_build", "name of a firmware build that is known here; empty until the node reports it", ""),
    Column("site", "up to 64 signs", "plant-3"),
    Column("labels", "key=value, apart by semicolons; a backslash keeps a semicolon in a value", "line=7; tag=canary"),
    Column("time_zone", "of its site, for windows in local time; empty: UTC", "Europe/Berlin"),
    Column("slot_bytes", "bytes of a model slot, where they are not the profile's", ""),
    Column("sram_bytes", "bytes of SRAM, where they are not the profile's", ""),
    Column("reserved_sram_bytes", "bytes of SRAM that RTOS and application keep, where they are not the profile's", ""),
    Column("installed", "model and version that the node says it runs", read_only=True),
    Column("active_digest", "digest of the active slot, or its first 8 hex digits", read_only=True),
    Column("standby_digest", "digest of the standby slot, or its first 8 hex digits", read_only=True),
    Column("last_seen_at", "last sign of life, UTC", read_only=True),
    Column("report_interval_s", "smoothed time between signs of life, seconds", read_only=True),
    Column("battery_percent", "as last reported", read_only=True),
    Column("registered_at", "UTC", read_only=True),
]
WRITABLE = [column.name for column in COLUMNS if not column.read_only]
READ_ONLY = [column.name for column in COLUMNS if column.read_only]
REQUIRED = [column.name for column in COLUMNS if column.required]


class CsvError(ValueError):
    """Text that is no CSV, with the row where it ends to be one; the header is row 1."""

    def __init__(self, row: int, message: str, fix: str) -> None:
        super().__init__(row, message, fix)
        self.row, self.message, self.fix = row, message, fix


def guarded(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_RISKY) else cell


def unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_RISKY) else cell


def line(cells: list[str]) -> str:
    """One CSV row with its line end; every cell guarded."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow([guarded(cell) for cell in cells])
    return buffer.getvalue()


def template() -> str:
    """Header and one example row of what can be imported."""
    columns = [column for column in COLUMNS if not column.read_only]
    return line([column.name for column in columns]) + line([column.example for column in columns])


def read(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Rows with their numbers, empty ones left out, cells without their guards. Comma or semicolon. Raises CsvError."""
    if len(data) > MAXIMUM_BYTES:
        raise CsvError(1, f"the file has {len(data)} bytes, at most {MAXIMUM_BYTES} are read", "split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise CsvError(row, f"byte {error.start} is not UTF-8", "save the file as CSV UTF-8") from None
    first = text.split("\n", 1)[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    number = 0
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            if number > MAXIMUM_ROWS + 1:
                raise CsvError(number, f"more than {MAXIMUM_ROWS} rows", "split the file")
            if any(cell.strip() for cell in cells):
                yield number, [unguarded(cell) for cell in cells]
    except csv.Error as error:
        raise CsvError(
            number + 1, f"this is no CSV ({error})", "check the quotes of this row and those before it"
        ) from None
