"""What people type. Errors name the field, the value and the fix."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile

from frontend.templatetags.fleet_format import format_bytes
from updates import selectors as updates
from updates.campaigns.gates import GatePolicy
from updates.models import ModelFamily, ModelVersion
from updates.states import NodeUpdateState


class NodeFilterForm(forms.Form):
    text = forms.CharField(required=False, max_length=1000)
    campaign = forms.IntegerField(required=False, min_value=1)
    state = forms.ChoiceField(required=False, choices=[("", ""), *NodeUpdateState.choices])
    silent = forms.BooleanField(required=False)
    after = forms.IntegerField(required=False, min_value=0)


class StyledForm(forms.Form):
    """Gives each widget the class of the style sheet, and marks those that hold an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            plain = isinstance(field.widget, forms.ClearableFileInput | forms.FileInput)
            if not plain:
                field.widget.attrs["class"] = "select" if isinstance(field.widget, forms.Select) else "input"

    def add_error(self, field: str | None, error: Any) -> None:
        super().add_error(field, error)
        if field is not None:
            self.fields[field].widget.attrs["aria-invalid"] = "true"


class UploadForm(StyledForm):
    family_name = forms.SlugField(
        label="Model family", max_length=64, help_text="Letters, digits and hyphens. A new name makes a new family."
    )
    version_name = forms.RegexField(
        r"^[0-9A-Za-z][0-9A-Za-z.+_-]*$",
        label="Version",
        max_length=32,
        help_text="For example 1.5.1. Once in a family, and never changed afterwards.",
        error_messages={"invalid": "Start with a letter or digit; then letters, digits and . + _ - are allowed."},
    )
    onnx = forms.FileField(label="Network (.onnx)", help_text="Static shapes; fp32 weights.")
    calibration = forms.FileField(label="Calibration data (.npz)", help_text="Array inputs; sets the int8 ranges.")
    evaluation = forms.FileField(
        label="Evaluation data (.npz)", help_text="Arrays inputs and labels; more slices by name."
    )

    def _within_limit(self, name: str) -> UploadedFile[Any]:
        file: UploadedFile[Any] = self.cleaned_data[name]
        if (file.size or 0) > settings.UPLOAD_MAX_BYTES:
            limit = format_bytes(settings.UPLOAD_MAX_BYTES)
            raise forms.ValidationError(
                f"{file.name} has {format_bytes(file.size)}; at most {limit} are taken. Upload a smaller file."
            )
        return file

    def clean_onnx(self) -> UploadedFile[Any]:
        return self._within_limit("onnx")

    def clean_calibration(self) -> UploadedFile[Any]:
        return self._within_limit("calibration")

    def clean_evaluation(self) -> UploadedFile[Any]:
        return self._within_limit("evaluation")


class VersionChoice(forms.ModelChoiceField):
    def label_from_instance(self, obj: Any) -> str:
        return str(obj)


_POLICY = GatePolicy()


class CampaignForm(StyledForm):
    name = forms.CharField(max_length=100)
    version = VersionChoice(ModelVersion.objects.none(), help_text="Versions that are built and validated.")
    node_filter = forms.CharField(
        label="Nodes",
        required=False,
        max_length=1000,
        help_text="Filter, for example: profile:stm32l4 site:plant-3. Empty means every node.",
    )
    waves = forms.CharField(
        initial="10, 50, 100", help_text="Cumulative percent of the nodes, rising, the last one 100: 10, 50, 100."
    )
    soak_hours = forms.FloatField(
        label="Soak after each wave, hours",
        initial=48,
        min_value=0,
        max_value=24 * 90,
        help_text="Fleet time. The gate watches the wave for this long before the next one opens.",
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
        help_text="The gate decides nothing on fewer completed updates.",
    )
    starts_at = forms.DateTimeField(
        label="Start at, UTC",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        help_text="Empty: as soon as it is approved and started.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["version"].queryset = updates.ready_versions()  # type: ignore[attr-defined]

    def clean_waves(self) -> list[float]:
        text: str = self.cleaned_data["waves"]
        try:
            percents = [float(part.strip().rstrip("%")) for part in text.split(",")]
        except ValueError:
            raise forms.ValidationError(f"“{text}” is not a list of percents. Write 10, 50, 100.") from None
        rising = all(low < high for low, high in pairwise(percents))
        if not rising or not percents[0] > 0 or percents[-1] != 100:
            raise forms.ValidationError(f"“{text}” must rise from above 0 to exactly 100. Write 10, 50, 100.")
        return percents

    def wave_list(self) -> list[dict[str, float | int]]:
        soak_s = int(self.cleaned_data["soak_hours"] * 3600)
        return [{"percent": percent, "soak_s": soak_s} for percent in self.cleaned_data["waves"]]

    def gate(self) -> dict[str, float | int]:
        names = ("maximum_failure_percent", "maximum_silent_percent", "minimum_sample")
        return {name: self.cleaned_data[name] for name in names}


def known_families() -> list[str]:
    return list(ModelFamily.objects.order_by("name").values_list("name", flat=True)[:100])
