"""What people type about nodes. Errors name the field, the value and the fix."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from devices.labels import LabelError, check_site, parse_keys, parse_labels
from devices.node_csv import MAXIMUM_BYTES
from devices.paging import SORTS
from devices.relabelling import Relabelling
from frontend.forms import StyledForm
from frontend.templatetags.fleet_format import format_bytes
from frontend.timeline import KINDS
from updates.states import NodeUpdateState


class NodeFilterForm(forms.Form):
    text = forms.CharField(required=False, max_length=1000)
    campaign = forms.IntegerField(required=False, min_value=1)
    state = forms.ChoiceField(required=False, choices=[("", ""), *NodeUpdateState.choices])
    silent = forms.BooleanField(required=False)
    sort = forms.ChoiceField(required=False, choices=[(name, name) for one in SORTS for name in (one, f"-{one}")])
    after = forms.IntegerField(required=False, min_value=0, max_value=2**63 - 1)
    at = forms.CharField(required=False, max_length=200, strip=False)
    whole_fleet = forms.BooleanField(required=False)


class SelectionForm(NodeFilterForm):
    """The nodes that a filter finds, or those that are ticked."""

    ids = forms.TypedMultipleChoiceField(required=False, coerce=int)
    which = forms.ChoiceField(choices=[("ticked", "ticked"), ("all", "all")])


class RelabelForm(StyledForm):
    put = forms.CharField(
        label="Set labels",
        required=False,
        max_length=5000,
        help_text="key=value, apart by semicolons: line=7; tag=canary.",
    )
    remove = forms.CharField(
        label="Remove labels", required=False, max_length=2500, help_text="Keys, apart by commas: tag, old."
    )
    site = forms.CharField(
        label="Set the site", required=False, max_length=64, help_text="Empty leaves each node's site as it is."
    )
    clear_site = forms.BooleanField(label="Take the site away from all of them", required=False)
    expected = forms.IntegerField(required=False, min_value=0, widget=forms.HiddenInput)

    def clean_put(self) -> dict[str, str]:
        try:
            return parse_labels(self.cleaned_data["put"])
        except LabelError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_remove(self) -> list[str]:
        try:
            return parse_keys(self.cleaned_data["remove"])
        except LabelError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        values = self.cleaned_data
        if values.get("clear_site") and values.get("site"):
            self.add_error("site", f"“{values['site']}” is to be set and taken away; choose one of the two.")
        if not self.errors:
            site = "" if values["clear_site"] else values["site"] or None
            try:
                values["change"] = Relabelling(put=values["put"], remove=values["remove"], site=site)
            except LabelError as error:
                self.add_error(None, str(error))
        return values


class DescribeForm(StyledForm):
    labels = forms.CharField(
        required=False, max_length=5000, help_text="key=value, apart by semicolons: line=7; tag=canary."
    )
    site = forms.CharField(required=False, max_length=64)

    def clean_labels(self) -> dict[str, str]:
        try:
            return parse_labels(self.cleaned_data["labels"])
        except LabelError as error:
            raise forms.ValidationError(str(error)) from error

    def clean_site(self) -> str:
        site: str = self.cleaned_data["site"]
        try:
            check_site(site)
        except LabelError as error:
            raise forms.ValidationError(str(error)) from error
        return site


class ImportForm(StyledForm):
    file = forms.FileField(label="CSV file", help_text="UTF-8, comma or semicolon, one node a row.")
    update = forms.BooleanField(
        label="Update nodes that are registered already",
        required=False,
        help_text="Without it, a row whose endpoint is registered is an error.",
    )

    def clean_file(self) -> UploadedFile[Any]:
        file: UploadedFile[Any] = self.cleaned_data["file"]
        if (file.size or 0) > MAXIMUM_BYTES:
            raise forms.ValidationError(
                f"{file.name} has {format_bytes(file.size)}; at most {format_bytes(MAXIMUM_BYTES)} are read. Split it."
            )
        return file


class ViewForm(StyledForm):
    name = forms.CharField(max_length=64)
    node_filter = forms.CharField(required=False, max_length=1000, widget=forms.HiddenInput)
    shared = forms.BooleanField(required=False)


class TimelineForm(forms.Form):
    kind = forms.ChoiceField(required=False, choices=list(KINDS.items()))
    before = forms.CharField(required=False, max_length=80)
