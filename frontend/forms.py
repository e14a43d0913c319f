"""What people type. Errors name the field, the value and the fix."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.files.uploadedfile import UploadedFile

from frontend.templatetags.fleet_format import format_bytes
from updates.models import ModelFamily


class StyledForm(forms.Form):
    """Gives each widget the class of the style sheet, and marks those that hold an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.style()

    def style(self) -> None:
        for field in self.fields.values():
            plain = isinstance(field.widget, forms.ClearableFileInput | forms.FileInput | forms.CheckboxInput)
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


def known_families() -> list[str]:
    return list(ModelFamily.objects.order_by("name").values_list("name", flat=True)[:100])
