"""What a campaign binds itself to besides its nodes, as people type it and as an approver reads it.

A window is a line: `22:00-05:00`, `MO-TH 22:00-05:00`, or an RFC 5545 rule in front of it. A blackout is a line with one date
or two. The meaning is that of `updates.campaigns.windows`; nothing here judges but what a line cannot say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms

from devices.labels import LabelError, parse_labels
from frontend import zones
from frontend.forms import StyledForm
from frontend.templatetags.fleet_format import format_duration
from updates.campaigns.fairness import PRIORITY_HIGHEST
from updates.campaigns.limits import HIGHEST, LABEL
from updates.campaigns.terms import ATTEMPTS_HIGHEST, DEFAULTS
from updates.models import EndBehaviour, Membership

DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
WORDS = dict(zip(DAYS, ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"), strict=True))
LONGEST_HOURS = 24 * 365
_WINDOW = re.compile(
    r"(?:(?P<rule>\S+)\s+)?(?P<start>\d\d:\d\d)\s*(?:-|–|to)\s*(?P<end>\d\d:\d\d)(?:\s+from\s+(?P<anchor>\S+))?"
)
_BLACKOUT = re.compile(r"(?P<first>\S+?)(?:\s+(?:to|-|–)\s+(?P<last>\S+))?")
_PLAIN_WEEK = re.compile(r"FREQ=WEEKLY;BYDAY=(?P<days>(?:[A-Z]{2},?)+)")
# Field of this form by the beginning of the field that a refused plan names.
FIELD_OF = {
    "windows.transfer": "transfer_windows",
    "windows.activation": "activation_windows",
    "windows.blackout": "blackout",
    "limits.label": "limit_labels",
    "limits.campaign": "limit_campaign",
    "limits.wave": "limit_wave",
    "limits.site": "limit_site",
    "limits.gateway": "limit_gateway",
    "limits": "limit_labels",
}


def field_of(name: str) -> str:
    """Where the form shows what a plan was refused for."""
    return next((field for prefix, field in FIELD_OF.items() if name.startswith(prefix)), name)


def _lines(help_text: str, label: str) -> forms.CharField:
    widget = forms.Textarea(attrs={"rows": 2, "spellcheck": "false"})
    return forms.CharField(label=label, required=False, max_length=4000, widget=widget, help_text=help_text)


def _places(label: str, help_text: str) -> forms.IntegerField:
    return forms.IntegerField(label=label, required=False, min_value=1, max_value=HIGHEST, help_text=help_text)


def _hours(label: str, default_s: int, help_text: str) -> forms.FloatField:
    hours = forms.FloatField(label=label, required=False, min_value=0.02, max_value=LONGEST_HOURS, help_text=help_text)
    hours.initial = default_s // 3600
    return hours


class TermsForm(StyledForm):
    """Fields that are left empty have the defaults of `updates.campaigns.terms`."""

    # Read as a plain wall clock, in the zone of the start.
    ends_at = forms.CharField(
        label="End at",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="Empty: when its last wave has passed. Nothing is offered from then on.",
    )
    end_behaviour = forms.ChoiceField(
        label="At the end",
        required=False,
        choices=[("finish", "finish what is open"), ("cancel", "withdraw what is open")],
        help_text="What was only planned is cancelled.",
    )
    membership = forms.ChoiceField(
        label="Members",
        required=False,
        choices=[("fixed", "the nodes of the plan"), ("dynamic", "all that match, all along")],
        help_text="Nodes that match later join the wave that their hash says.",
    )
    transfer_windows = _lines("One a line: 22:00-05:00, or MO-TH 22:00-05:00. Empty: always.", "Transfer windows")
    activation_windows = _lines(
        "When nodes may switch, where their link can tell them. Empty: always.", "Activation windows"
    )
    blackout = _lines("One a line: 2026-12-24, or 2026-12-24 to 2027-01-01. Closes all windows.", "Blackout dates")
    priority = forms.IntegerField(
        label="Priority",
        required=False,
        initial=DEFAULTS["priority"],
        min_value=0,
        max_value=PRIORITY_HIGHEST,
        help_text=f"0 to {PRIORITY_HIGHEST}: the higher goes first on a node or a free place.",
    )
    limit_campaign = _places("At once, in all", "Most open updates. Empty: no limit.")
    limit_wave = _places("At once, in a wave", "Empty: no limit.")
    limit_site = _places("At once, at a site", "All campaigns count. Empty: no limit.")
    limit_gateway = _places("At once, at a gateway", "LoRaWAN; all campaigns count. Empty: no limit.")
    limit_labels = forms.CharField(
        label="At once, by a label",
        required=False,
        max_length=400,
        help_text="For example cell=20; line=2: so many at each value of that label.",
    )
    offer_timeout_h = _hours("Silent after, hours", DEFAULTS["offer_timeout_s"], "An offer that no node takes up.")
    progress_timeout_h = _hours("Without progress, hours", DEFAULTS["progress_timeout_s"], "A transfer or a trial.")
    maximum_attempts = forms.IntegerField(
        label="Attempts of a node",
        required=False,
        initial=DEFAULTS["maximum_attempts"],
        min_value=1,
        max_value=ATTEMPTS_HIGHEST,
        help_text="While its failures may pass.",
    )
    full_image = forms.ChoiceField(
        label="Full image",
        required=False,
        choices=[("yes", "where no patch leads"), ("no", "never")],
        help_text="Never: nodes without a patch are left out.",
    )

    def clean_transfer_windows(self) -> list[dict[str, str]]:
        return _windows(self.cleaned_data["transfer_windows"])

    def clean_activation_windows(self) -> list[dict[str, str]]:
        return _windows(self.cleaned_data["activation_windows"])

    def clean_blackout(self) -> list[dict[str, str]]:
        found = []
        for line in _written(self.cleaned_data["blackout"]):
            read = _BLACKOUT.fullmatch(line)
            if read is None:
                raise forms.ValidationError(f"“{line}” is no blackout. Write 2026-12-24 or 2026-12-24 to 2027-01-01.")
            found.append({"from": read["first"], "to": read["last"] or read["first"]})
        return found

    def clean_limit_labels(self) -> dict[str, int]:
        text = self.cleaned_data["limit_labels"]
        try:
            labels = parse_labels(text)
        except LabelError as error:
            raise forms.ValidationError(str(error)) from error
        limits = {}
        for key, value in labels.items():
            if not value.strip().isascii() or not value.strip().isdigit():
                raise forms.ValidationError(f"“{value}” is no number of updates. Write {key}=20.")
            limits[f"{LABEL}{key}"] = int(value)
        return limits

    def terms(self) -> dict[str, Any]:
        """For create_campaign; only of a valid form."""
        values = self.cleaned_data
        windows = {
            "transfer": values["transfer_windows"],
            "activation": values["activation_windows"],
            "blackout": values["blackout"],
        }
        counts = {name: values[f"limit_{name}"] for name in ("campaign", "wave", "site", "gateway")}
        terms: dict[str, Any] = {
            "windows": {name: part for name, part in windows.items() if part},
            "limits": {name: count for name, count in counts.items() if count} | values["limit_labels"],
            "full_image_allowed": values["full_image"] != "no",
            "ends_at": values["ends_at"] or None,
        }
        for name in ("offer_timeout", "progress_timeout"):
            if values[f"{name}_h"] is not None:
                terms[f"{name}_s"] = round(values[f"{name}_h"] * 3600)
        for name in ("priority", "maximum_attempts", "end_behaviour", "membership"):
            if values[name] not in (None, ""):
                terms[name] = values[name]
        return terms


def _written(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _windows(text: str) -> list[dict[str, str]]:
    found = []
    for line in _written(text):
        read = _WINDOW.fullmatch(line)
        if read is None:
            raise forms.ValidationError(f"“{line}” is no window. Write 22:00-05:00 or MO-TH 22:00-05:00.")
        window = {"start": read["start"], "end": read["end"]}
        if read["rule"]:
            window["rrule"] = (
                read["rule"] if "=" in read["rule"] else f"FREQ=WEEKLY;BYDAY={','.join(_days(read['rule']))}"
            )
        if read["anchor"]:
            window["from"] = read["anchor"]
        found.append(window)
    return found


def _days(text: str) -> list[str]:
    """MO,TU or MO-TH; a range may go over the end of the week."""
    days: list[str] = []
    for piece in text.upper().split(","):
        first, dash, last = piece.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise forms.ValidationError(f"“{piece}” is no day. Write MO, TU, WE, TH, FR, SA or SU, or MO-FR.")
        begin, count = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
        days += [DAYS[(begin + step) % 7] for step in range(count + 1)]
    return days


def term_rows(terms: Mapping[str, Any], zone: str) -> list[tuple[str, str]]:
    """Names and sentences of a plan's terms, for an approver. Empty for a plan that was stored before they were kept."""
    if not terms:
        return []
    windows, limits = terms["windows"], terms["limits"]
    rows = [
        ("Priority", f"{terms['priority']} of {PRIORITY_HIGHEST}"),
        ("Members", Membership(terms["membership"]).label),
    ]
    if terms["ends_at"]:
        end = zones.in_zone(datetime.fromisoformat(terms["ends_at"]), zone)
        rows.append(("End", f"{end}; {EndBehaviour(terms['end_behaviour']).label}"))
    for name, label in (("transfer", "Transfer"), ("activation", "Activation")):
        shown = [_shown(window) for window in windows.get(name, [])]
        rows.append((label, f"{'; '.join(shown)}, local time of each node" if shown else "at any time"))
    if windows.get("blackout"):
        rows.append(("Blackout", "; ".join(_dates(one) for one in windows["blackout"])))
    rows.append(("At once", "; ".join(_limit(*one) for one in limits.items()) or "as many as the links carry"))
    rows.append(
        (
            "Silent",
            (
                f"an offer after {format_duration(terms['offer_timeout_s'])}, without progress after "
                f"{format_duration(terms['progress_timeout_s'])}; later where a node seldom reports"
            ),
        )
    )
    rows.append(("Attempts", f"at most {terms['maximum_attempts']} of a node, while its failures may pass"))
    full = "goes where no patch is ready in" if terms["full_image_allowed"] else "never goes; patches are waited for"
    rows.append(("Full image", f"{full} {format_duration(terms['patch_deadline_s'])}"))
    return rows


def _shown(window: Mapping[str, str]) -> str:
    rule = window.get("rrule", "FREQ=DAILY")
    times = f"{window['start']} to {window['end']}"
    if plain := _PLAIN_WEEK.fullmatch(rule):
        return f"{', '.join(WORDS.get(day, day) for day in plain['days'].split(','))} {times}"
    since = f" from {window['from']}" if window.get("from") else ""
    return f"{'every day' if rule == 'FREQ=DAILY' else rule}{since} {times}"


def _dates(one: Mapping[str, str]) -> str:
    last = one.get("to") or one["from"]
    return one["from"] if last == one["from"] else f"{one['from']} to {last}"


def _limit(name: str, most: int) -> str:
    where = {"campaign": "in all", "wave": "in a wave", "site": "at a site", "gateway": "at a gateway"}
    return f"{most} {where.get(name, f'at each {name.removeprefix(LABEL)}')}"
