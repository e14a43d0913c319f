"""How values look on every page: sizes in KiB, times in UTC and relative, short digests to copy, states as words."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django import template
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from devices.labels import format_labels
from updates import causes

register = template.Library()

MINUTE, HOUR, DAY = 60, 3600, 86400


class Look(NamedTuple):
    """CSS class, icon and word of a state: colour never stands alone."""

    css: str
    icon: str
    word: str


LOOKS = {
    "node": {
        state: Look(f"is-{state}", f"s-{state}", word)
        for state, word in (
            ("planned", "Planned"),
            ("offered", "Offered"),
            ("transferring", "Transferring"),
            ("staged", "Staged"),
            ("trial", "On trial"),
            ("confirmed", "Confirmed"),
            ("failed", "Failed"),
            ("rejected", "Rejected"),
            ("silent", "Silent"),
            ("reverted", "Reverted"),
            ("skipped", "Skipped"),
            ("cancelled", "Cancelled"),
        )
    },
    "campaign": {
        "draft": Look("is-planned", "s-planned", "Draft"),
        "scheduled": Look("is-planned", "i-clock", "Scheduled"),
        "running": Look("is-moving", "i-wave", "Running"),
        "paused": Look("is-held", "s-held", "Paused"),
        "halted": Look("is-failed", "i-stop", "Halted by its gate"),
        "finished": Look("is-confirmed", "s-confirmed", "Finished"),
        "aborted": Look("is-cancelled", "s-cancelled", "Aborted"),
    },
    "wave": {
        "waiting": Look("is-planned", "s-planned", "Waiting"),
        "open": Look("is-moving", "s-offered", "Open"),
        "soaking": Look("is-moving", "i-clock", "Soaking"),
        "passed": Look("is-pass", "s-confirmed", "Gate passed"),
        "halted": Look("is-failed", "i-stop", "Gate halted"),
    },
    "version": {
        "uploaded": Look("is-planned", "s-planned", "Waiting to be built"),
        "building": Look("is-moving", "s-trial", "Building"),
        "ready": Look("is-confirmed", "s-confirmed", "Ready"),
        "refused": Look("is-rejected", "s-rejected", "Refused"),
    },
    "patch": {
        "waiting": Look("is-moving", "s-trial", "Being built"),
        "ready": Look("is-confirmed", "s-confirmed", "Ready"),
        "failed": Look("is-failed", "s-failed", "Failed"),
    },
    "difference": {
        "better": Look("is-pass", "s-confirmed", "Better"),
        "worse": Look("is-fail", "s-failed", "Worse"),
        "unsure": Look("is-inconclusive", "s-inconclusive", "No difference shown"),
        "unknown": Look("is-planned", "s-planned", "Not in both"),
    },
    "verdict": {
        "passed": Look("is-pass", "s-confirmed", "Passed"),
        "failed": Look("is-fail", "s-failed", "Failed"),
        "inconclusive": Look("is-inconclusive", "s-inconclusive", "Inconclusive"),
        "fits": Look("is-fits", "s-confirmed", "Fits"),
        "nofit": Look("is-nofit", "s-failed", "Does not fit"),
        "takes": Look("is-fits", "s-confirmed", "Takes it"),
        "refuses": Look("is-nofit", "s-rejected", "Refuses it"),
        "pass": Look("is-pass", "s-confirmed", "Go on"),
        "go": Look("is-pass", "s-confirmed", "Go on"),
        "wait": Look("is-planned", "i-clock", "Wait"),
        "hold": Look("is-held", "s-held", "Hold"),
        "halt": Look("is-failed", "i-stop", "Halt"),
        "roll_back": Look("is-reverted", "s-reverted", "Roll back"),
    },
}


def look(kind: str, state: str) -> Look:
    """A state that this table does not know yet still shows its own name."""
    return LOOKS[kind].get(state, Look("is-none", "i-info", state.replace("_", " ").capitalize()))


def format_bytes(value: float | None) -> str:
    if value is None:
        return "unknown"
    if abs(value) < 1024:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if abs(value) < 1024 or unit == "GiB":
            break
    return f"{value:,.1f} {unit}"


def format_duration(seconds: float) -> str:
    """The two largest units: 45 s, 3 min, 2 h 5 min, 3 d 4 h."""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    large, small, units = (HOUR, MINUTE, ("h", "min")) if whole < DAY else (DAY, HOUR, ("d", "h"))
    rest = whole % large // small
    return f"{whole // large} {units[0]}" + (f" {rest} {units[1]}" if rest else "")


def format_time(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at.day} {at:%b %H:%M} UTC"


register.filter("bytes", format_bytes)
register.filter("duration", format_duration)
register.filter("cause", causes.sentence)
register.filter("labels", lambda labels: format_labels(labels) or "no labels")


@register.filter
def short_bytes(value: int) -> str:
    """For an axis, which has no room: a round number of KiB without decimals."""
    return f"{value} B" if value < 1024 else f"{value / 1024:g} KiB"


@register.filter
def cut_underscores(name: str) -> str:
    """A field's name as words."""
    return name.replace("_", " ")


@register.filter
def listed(value: object) -> str:
    """Lists and tables on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)


@register.filter
def of(table: dict[str, Any], key: str) -> Any:
    """What a table has under a key that is known only on the page."""
    return table.get(key)


@register.filter
def percent(fraction: float | None, digits: int = 1) -> str:
    return "unknown" if fraction is None else f"{fraction * 100:.{digits}f} %"


@register.filter
def megahertz(hertz: float) -> str:
    return f"{hertz / 1e6:g} MHz"


@register.filter
def points(fraction: float | None) -> str:
    return "unknown" if fraction is None else f"{fraction * 100:+.1f}".replace("-", "−")


@register.filter
def signed(count: int) -> str:
    return f"{count:+,}".replace("-", "−")


@register.filter
def breakable(name: str) -> SafeString:
    """A dotted name that may wrap behind a dot or an underscore, and nowhere else."""
    return mark_safe(re.sub(r"([._])", r"\1<wbr>", escape(name)))  # noqa: S308 - escaped before


@register.filter
def short(digest: str) -> str:
    return digest[:8]


@register.simple_tag
def when(at: datetime | None) -> SafeString | str:
    """UTC, with the year in the tooltip."""
    if at is None:
        return "never"
    exact = at.astimezone(UTC)
    text = format_time(exact)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', exact.isoformat(), f"{exact:%Y-%m-%d %H:%M:%S} UTC", text
    )


@register.simple_tag
def ago(at: datetime | None) -> str:
    if at is None:
        return "never"
    seconds = (timezone.now() - at).total_seconds()
    return f"{format_duration(seconds)} ago" if seconds >= 0 else f"in {format_duration(-seconds)}"


@register.simple_tag
def icon(name: str) -> SafeString:
    return format_html('<svg class="icon" aria-hidden="true"><use href="#{}"/></svg>', name)


@register.simple_tag
def badge(kind: str, state: str) -> SafeString:
    css, symbol, word = look(kind, state)
    return format_html('<span class="badge {}">{}{}</span>', css, icon(symbol), word)


@register.simple_tag
def state_mark(kind: str, state: str, count: Any = "") -> SafeString:
    css, symbol, word = look(kind, state)
    return format_html('<span class="state {}">{}{} {}</span>', css, icon(symbol), word, count)


@register.simple_tag
def digest(value: str) -> SafeString:
    """The first 8 hex digits, with a button that copies all that is known."""
    if not value:
        return format_html('<span class="quiet">{}</span>', "empty")
    return format_html(
        '<span class="digest"><code>{0}</code><button class="copy" type="button" data-copy="{1}" '
        'aria-label="Copy digest {0}">{2}</button></span>',
        value[:8],
        value,
        icon("i-copy"),
    )
