"""Times in a named zone, with UTC in the tooltip."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from frontend import zones

register = template.Library()


@register.simple_tag
def at_zone(at: datetime, zone: str) -> str:
    """Mon 30 Nov 2026, 22:00 CET. Plain text, so that it may stand in an attribute."""
    return zones.in_zone(at, zone)


@register.simple_tag
def day_zone(at: datetime, zone: str) -> str:
    """Mon 30 Nov, 22:00"""
    return f"{at.astimezone(ZoneInfo(zone)):%a %-d %b, %H:%M}"


@register.simple_tag
def time_zone_time(at: datetime, zone: str) -> SafeString:
    exact = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        exact.isoformat(),
        f"{exact:%Y-%m-%d %H:%M:%S} UTC",
        zones.in_zone(at, zone),
    )
