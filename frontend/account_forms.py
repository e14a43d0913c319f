"""What people type about accounts and into the audit log's filter."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator

from fleet.accounts.models import Role, User
from fleet.accounts.permissions import PERMISSIONS, Scope
from fleet.audit.selectors import AuditFilter
from fleet.clock import in_utc
from frontend.forms import StyledForm


class PasswordForm(StyledForm):
    current = forms.CharField(
        label="Present password", widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}), strip=False
    )
    new = forms.CharField(
        label="New password",
        help_text="At least 12 characters; none that everybody uses.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
    )
    again = forms.CharField(
        label="New password again", widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}), strip=False
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_current(self) -> str:
        current: str = self.cleaned_data["current"]
        if not self.user.check_password(current):
            raise forms.ValidationError("This is not your present password. Type the one that you signed in with.")
        return current

    def clean_new(self) -> str:
        new: str = self.cleaned_data["new"]
        if new == self.cleaned_data.get("current"):
            raise forms.ValidationError("This is your present password. Choose another one.")
        validate_password(new, self.user)
        return new

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "new" in values and "again" in values and values["new"] != values["again"]:
            self.add_error("again", "The two new passwords differ. Type the same one twice.")
        return values


class UserForm(StyledForm):
    username = forms.CharField(
        label="User name",
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        help_text="Letters, digits and @ . + - _",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    role = forms.ChoiceField(choices=Role.choices, initial=Role.VIEWER)

    def clean_username(self) -> str:
        username: str = self.cleaned_data["username"]
        if User.objects.filter(username=username).exists():
            raise forms.ValidationError(f"“{username}” is taken. Choose another name.")
        return username


class RoleForm(StyledForm):
    role = forms.ChoiceField(choices=Role.choices)


class TokenForm(StyledForm):
    name = forms.CharField(max_length=100, help_text="What uses it, such as the build server.")
    scopes = forms.MultipleChoiceField(widget=forms.CheckboxSelectMultiple, help_text="As little as it needs.")
    days = forms.IntegerField(
        label="Days until it expires",
        initial=90,
        required=False,
        min_value=1,
        max_value=3650,
        help_text="Empty: it never does.",
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scopes = self.fields["scopes"]
        scopes.widget.attrs.pop("class", None)
        scopes.choices = [  # type: ignore[attr-defined]
            (scope.value, f"{scope.value}: {'; '.join(PERMISSIONS[scope].allows)}")
            for scope in Scope
            if user.may(scope.role)
        ]

    def expires_at(self, now: datetime) -> datetime | None:
        days = self.cleaned_data["days"]
        return now + timedelta(days=days) if days else None


_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")


def zone_named(text: str) -> tzinfo:
    """A zone of the tz database, or an offset such as +02:00. Raises ValueError."""
    if match := _OFFSET.fullmatch(text):
        sign = -1 if match[1] == "-" else 1
        return timezone(sign * timedelta(hours=int(match[2]), minutes=int(match[3])))
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(text) from error


class AuditForm(StyledForm):
    actor = forms.CharField(label="Who", required=False, max_length=150, help_text="A user name; tokens are included.")
    action = forms.CharField(required=False, max_length=64, help_text="campaign.pause, or campaign. for all of a kind.")
    subject = forms.CharField(required=False, max_length=140, help_text="devices.node, or devices.node/7.")
    text = forms.CharField(required=False, max_length=200, help_text="Anywhere in names and values.")
    since = forms.DateTimeField(
        label="From",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    until = forms.DateTimeField(
        label="Until",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    zone = forms.CharField(
        label="Zone of both", required=False, max_length=64, help_text="UTC, Europe/Berlin or +02:00. Empty: UTC."
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        zone: tzinfo = UTC
        if text := values.get("zone"):
            try:
                zone = zone_named(text)
            except ValueError:
                self.add_error("zone", f"“{text}” is no zone. Write UTC, Europe/Berlin or +02:00.")
        for name in ("since", "until"):
            if values.get(name):
                try:
                    values[name] = in_utc(values[name].replace(tzinfo=zone))
                except ValueError as error:
                    self.add_error(name, f"“{values.pop(name):%Y-%m-%d}” cannot be; {error}.")
        if values.get("since") and values.get("until") and values["since"] >= values["until"]:
            self.add_error("until", "This is not after “From”. Choose a later time.")
        return values

    def wanted(self) -> AuditFilter:
        values = self.cleaned_data
        names = ("actor", "action", "subject", "since", "until", "text")
        return AuditFilter(**{name: values[name] for name in names if values.get(name)})
