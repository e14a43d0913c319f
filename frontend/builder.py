"""What people type to plan a campaign: the form, and its rows of waves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import Any

from django import forms
from django.http import QueryDict

from frontend import zones
from frontend.terms_form import TermsForm
from updates import selectors as updates
from updates.campaigns.gates import GatePolicy
from updates.models import ModelVersion

MAXIMUM_WAVES = 20
MAXIMUM_SOAK_HOURS = 24 * 90
_POLICY = GatePolicy()


@dataclass(frozen=True)
class Default:
    """A default of the form, and why it is that."""

    name: str
    value: str
    reason: str


POLICY = [
    Default(
        "Waves",
        "1, 5, 20, 50, 100 %",
        "A fault that shows in the first wave reaches no more than it. No failure in 149 nodes bounds the rate below "
        "2 % at 95 %, none in 299 below 1 %; in a small fleet make the first wave larger.",
    ),
    Default(
        "Soak",
        "72 h for the first wave, then 48 h",
        "Drift, heat and shift changes show over days: each node should report three times and decide 200 times.",
    ),
    Default(
        "Failure limit",
        f"{_POLICY.maximum_failure_percent:g} %",
        "The gate halts when even the low end of the 95 % interval of failures is above it, so bad luck does not halt.",
    ),
    Default(
        "Silence limit",
        f"{_POLICY.maximum_silent_percent:g} %",
        "A node asleep is no failure; many that fall silent together are, so the gate holds and somebody looks.",
    ),
    Default(
        "Samples needed",
        f"{_POLICY.minimum_sample}",
        "On fewer ended updates an interval says nothing: the gate holds rather than guesses.",
    ),
]


@dataclass
class WaveRow:
    percent: str = ""
    soak_hours: str = ""
    errors: list[str] = field(default_factory=list)


class WaveRows:
    """Rows of cumulative percent and hours of soak, as fields `percent` and `soak_hours` that repeat."""

    def __init__(self, rows: list[WaveRow]) -> None:
        self.rows = rows

    @classmethod
    def default(cls) -> WaveRows:
        soak = {0: "72"}
        return cls([WaveRow(percent, soak.get(i, "48")) for i, percent in enumerate(("1", "5", "20", "50", "100"))])

    @classmethod
    def read(cls, data: QueryDict) -> WaveRows:
        percents, soaks = data.getlist("percent"), data.getlist("soak_hours")
        soaks += [""] * (len(percents) - len(soaks))
        return cls([WaveRow(p[:20], s[:20]) for p, s in zip(percents, soaks, strict=False)][:MAXIMUM_WAVES])

    def add(self) -> None:
        """Before the last one, which stays the one that reaches 100 %."""
        if len(self.rows) < MAXIMUM_WAVES:
            self.rows.insert(max(0, len(self.rows) - 1), WaveRow(soak_hours="48"))

    def remove(self, index: int) -> None:
        if len(self.rows) > 1 and 0 <= index < len(self.rows):
            del self.rows[index]

    def is_valid(self) -> bool:
        """Leaves each error at its row, with the value and what to write."""
        last = 0.0
        for index, row in enumerate(self.rows):
            row.errors = []
            percent, soak = _number(row.percent), _number(row.soak_hours)
            if percent is None or not 0 < percent <= 100:
                row.errors.append(f"“{row.percent}” is no percentage. Write a number above 0, at most 100.")
            elif percent <= last:
                row.errors.append(
                    f"{percent:g} % does not rise above the {last:g} % before it. Percents are cumulative."
                )
            else:
                last = percent
            if soak is None or not 0 <= soak <= MAXIMUM_SOAK_HOURS:
                row.errors.append(f"“{row.soak_hours}” is no soak time. Write hours from 0 to {MAXIMUM_SOAK_HOURS}.")
            if index == len(self.rows) - 1 and not row.errors and percent != 100:
                row.errors.append(f"The last wave ends at {percent:g} %. Write 100, so that every node is in a wave.")
        return bool(self.rows) and not any(row.errors for row in self.rows)

    def values(self) -> list[dict[str, float | int]]:
        """For create_campaign; only of valid rows."""
        return [{"percent": float(row.percent), "soak_s": round(float(row.soak_hours) * 3600)} for row in self.rows]


def _number(text: str) -> float | None:
    try:
        value = float(text.strip().rstrip("%").replace(",", "."))
    except ValueError:
        return None
    return value if isfinite(value) else None


class VersionChoice(forms.ModelChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return str(obj)


class CampaignForm(TermsForm):
    name = forms.CharField(max_length=100)
    version = VersionChoice(ModelVersion.objects.none(), help_text="Versions that are built and validated.")
    node_filter = forms.CharField(
        label="Nodes",
        required=False,
        max_length=1000,
        help_text="Filter, for example: profile:stm32l4 site:plant-3. Empty means every node.",
    )
    maximum_failure_percent = forms.FloatField(
        label="Failure limit, %",
        initial=_POLICY.maximum_failure_percent,
        min_value=0,
        max_value=100,
        help_text="Halts when the lower end of the 95 % interval is above it.",
    )
    maximum_silent_percent = forms.FloatField(
        label="Silence limit, %",
        initial=_POLICY.maximum_silent_percent,
        min_value=0,
        max_value=100,
        help_text="Holds when more of the nodes fell silent.",
    )
    minimum_sample = forms.IntegerField(
        label="Samples needed, nodes",
        initial=_POLICY.minimum_sample,
        min_value=1,
        help_text="The gate decides nothing on fewer ended updates.",
    )
    # Read as a plain wall clock: the zone stands in its own field.
    starts_at = forms.CharField(
        label="Start at",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="Empty: as soon as it is approved and started.",
    )
    time_zone = forms.ChoiceField(
        label="Time zone",
        initial="UTC",
        choices=zones.choices,
        help_text="Of start and end; the plan shows its dates in it. Stored as UTC.",
    )

    def __init__(self, *args: Any, now: datetime, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._now = now
        self.fields["version"].queryset = updates.ready_versions()  # type: ignore[attr-defined]

    def clean_starts_at(self) -> datetime | None:
        return self._wall("starts_at")

    def clean_ends_at(self) -> datetime | None:
        return self._wall("ends_at")

    def _wall(self, name: str) -> datetime | None:
        text: str = self.cleaned_data[name].strip()
        if not text:
            return None
        try:
            wall = datetime.fromisoformat(text)
        except ValueError:
            raise forms.ValidationError(f"“{text}” is no date and time. Write 2026-11-30T22:00.") from None
        if wall.tzinfo is not None:
            raise forms.ValidationError(f"“{text}” names a zone. Write 2026-11-30T22:00 and choose the zone beside it.")
        return wall

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        zone = values.get("time_zone")
        for name in ("starts_at", "ends_at"):
            wall = values.get(name)
            if wall is None or not zone:
                continue
            try:
                values[name] = zones.instant(wall, zone)
            except (zones.NoSuchTime, OverflowError) as error:
                self.add_error(name, str(error))
                continue
            if values[name] < self._now:
                shown = zones.in_zone(values[name], zone)
                self.add_error(name, f"{shown} has passed. Choose a later time, or leave it empty.")
        return values

    def gate(self) -> dict[str, float | int]:
        names = ("maximum_failure_percent", "maximum_silent_percent", "minimum_sample")
        return {name: self.cleaned_data[name] for name in names}
