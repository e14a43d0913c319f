"""The one shape of all reports. Sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Form = Literal["weights", "relocatable"]


class ReportInvalid(ValueError):
    """A report that cannot be believed: `field` is where, `fix` what to do. `str()` is one sentence."""

    def __init__(self, field: str, message: str, fix: str) -> None:
        super().__init__(f"{field}: {message}; {fix}.")
        self.field, self.message, self.fix = field, message, fix


@dataclass(frozen=True)
class WeightArray:
    """One array of the weights blob as the tool laid it out."""

    name: str
    offset: int
    size: int
    format: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class RuntimeReport:
    """What a compiled network takes.

    `form` weights: the slot holds the weights blob alone, and kernels belong to the firmware. relocatable: the slot
    holds one binary with code and weights. `series` is the family of chips that it was generated for. The three digests
    are of what is compiled into code: None where the report does not tell them.
    """

    runtime: Literal["stm32cubeai", "tvm"]
    form: Form
    tool: str
    tool_version: str
    series: str
    model_name: str
    model_signature: str
    slot_bytes: int
    activations_bytes: int
    io_bytes: int
    runtime_ram_bytes: int
    runtime_flash_bytes: int
    multiply_accumulates: int | None = None
    weights: tuple[WeightArray, ...] = ()
    graph_digest: str | None = None
    activation_digest: str | None = None
    weight_scale_digest: str | None = None

    @property
    def ram_bytes(self) -> int:
        """Activations, inputs and outputs outside of them, and what kernels and toolchain keep."""
        return self.activations_bytes + self.io_bytes + self.runtime_ram_bytes

    def document(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> RuntimeReport:
        """Back from `document`."""
        weights = tuple(WeightArray(**{**one, "shape": tuple(one["shape"])}) for one in document["weights"])
        return cls(**{**document, "weights": weights})
