"""Whether a campaign may go on, with the numbers it is decided by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite, sqrt
from typing import Any, Literal

# Two-sided 95 %.
Z = 1.959964

Decision = Literal["pass", "hold", "halt"]


@dataclass(frozen=True)
class GatePolicy:
    """Limits in percent; `minimum_sample` counts node updates that came to an end on the node."""

    maximum_failure_percent: float = 2.0
    maximum_silent_percent: float = 20.0
    minimum_sample: int = 20

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> GatePolicy:
        """Raises ValueError that names the field, the value and what it may be."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"gate.{min(unknown)} is unknown; known are {', '.join(sorted(known))}")
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"gate.{name} is {value!r}; give a number")
            if not isfinite(value):
                raise ValueError(f"gate.{name} is {value}; give a finite number")
            if name.endswith("percent") and not 0 <= value <= 100:
                raise ValueError(f"gate.{name} is {value}; give a percentage from 0 to 100")
        policy = cls(**values)
        if policy.minimum_sample < 1 or policy.minimum_sample != int(policy.minimum_sample):
            raise ValueError(f"gate.minimum_sample is {policy.minimum_sample}; give a whole number from 1")
        return policy


@dataclass(frozen=True)
class Verdict:
    """A decision and what it rests on. `failure_low_percent` and `_high_` are the Wilson interval at 95 %."""

    decision: Decision
    reason: str
    completed: int
    failures: int
    silent: int
    failure_low_percent: float
    failure_high_percent: float
    policy: GatePolicy

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Score interval of a proportion, both in 0..1 (Wilson 1927); (0, 1) where nothing was seen."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    spread = Z * sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    centre, scale = share + Z * Z / (2 * total), 1 + Z * Z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def decide(
    *, tallies: Mapping[str, int], policy: GatePolicy, ended: bool, accepted: Mapping[str, int] | None = None
) -> Verdict:
    """The verdict over `tallies` (node updates by state, of all waves opened so far).

    Failures are counted over updates that ended on the node, never over all: a sleeping majority must not hide
    a failing canary. `ended` says that no node of the opened waves is still on its way; only then can too small a
    sample or silence hold the campaign. `accepted` are the tallies that a person went on with: only what came since
    is judged, so that one acceptance is not one for ever.
    """
    new = {state: max(0, count - (accepted or {}).get(state, 0)) for state, count in tallies.items()}
    failures = sum(new.get(state, 0) for state in ("failed", "rejected", "reverted"))
    completed = failures + new.get("confirmed", 0)
    silent = new.get("silent", 0)
    low, high = (100 * bound for bound in wilson(failures, completed))

    def verdict(decision: Decision, reason: str) -> Verdict:
        return Verdict(decision, reason, completed, failures, silent, round(low, 2), round(high, 2), policy)

    if completed >= policy.minimum_sample and low > policy.maximum_failure_percent:
        return verdict(
            "halt",
            f"{failures} of {completed} updates failed: at least {low:.1f} % (95 % interval to {high:.1f} %), "
            f"limit {policy.maximum_failure_percent:g} %",
        )
    if ended and completed < policy.minimum_sample and not accepted:
        return verdict("hold", f"{completed} updates came to an end; the gate needs {policy.minimum_sample} to decide")
    if ended and silent and 100 * silent / (silent + completed) > policy.maximum_silent_percent:
        return verdict(
            "hold",
            f"{silent} of {silent + completed} nodes fell silent, limit {policy.maximum_silent_percent:g} %",
        )
    return verdict("pass", f"{failures} of {completed} updates failed, limit {policy.maximum_failure_percent:g} %")
