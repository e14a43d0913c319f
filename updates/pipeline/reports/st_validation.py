"""The evaluation table of `stedgeai validate`: the C model against the original, on the host or on the target itself."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from updates.pipeline.reports.types import ReportInvalid

_HEAD = re.compile(r"^\s*Output\s+acc\s+rmse\s+mae\s+l2r\s+(.*)tensor\s*$", re.MULTILINE)
_ROW = re.compile(
    r"^\s*(?P<model>[\w -]+?) #(?P<output>\d+)\s+(?P<acc>n\.a\.|[\d.]+%?)\s+(?P<rest>[-\d. n/aeE+]+?)\s+'", re.MULTILINE
)
_SAMPLES = re.compile(r",\s*(\d+)\s*x\s")
_FIX = "send the text report of `stedgeai validate`"


@dataclass(frozen=True)
class Evaluation:
    """One row. `model`: "TARGET c-model" (measured on the chip), "HOST c-model", "original model" or "X-cross" (the C
    model against the original's outputs). `accuracy` from 0 to 1; errors in units of the output; None: not given."""

    model: str
    output: int
    samples: int | None
    accuracy: float | None
    rmse: float | None
    mae: float | None
    l2r: float | None
    cosine: float | None

    @property
    def on_target(self) -> bool:
        return self.model.upper().startswith("TARGET")


def read(text: str) -> tuple[Evaluation, ...]:
    """The rows of every table, in order. Raises ReportInvalid where there is none."""
    head = _HEAD.search(text)
    if head is None:
        raise ReportInvalid("report", "it has no table with Output, acc, rmse, mae, l2r and tensor", _FIX)
    columns = ("rmse", "mae", "l2r", *head[1].split())
    rows = []
    for match in _ROW.finditer(text, head.end()):
        values = dict(zip(columns, (_value(part) for part in match["rest"].split()), strict=False))
        line_end = text.find("\n", match.end())
        samples = _SAMPLES.search(text, match.end(), line_end if line_end > 0 else len(text))
        accuracy = _value(match["acc"].rstrip("%"))
        rows.append(
            Evaluation(
                model=match["model"].strip(),
                output=int(match["output"]),
                samples=int(samples[1]) if samples else None,
                accuracy=None if accuracy is None else accuracy / 100,
                rmse=values.get("rmse"),
                mae=values.get("mae"),
                l2r=values.get("l2r"),
                cosine=values.get("cos"),
            )
        )
    if not rows:
        raise ReportInvalid("report", "its evaluation table has no rows", _FIX)
    return tuple(rows)


def _value(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None  # "n.a.": the tool did not compute it
    return value if math.isfinite(value) else None
