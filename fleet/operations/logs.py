"""Log lines that can be followed: who asked, for which campaign, and never a secret."""

from __future__ import annotations

import re
import secrets
from collections.abc import MutableMapping
from typing import Any

import structlog

HEADER = "X-Request-ID"
_WELL_FORMED = re.compile("[0-9A-Za-z][0-9A-Za-z._-]{7,63}")
# Names of fields whose values are secrets, wherever somebody logs them.
_SECRET_NAME = re.compile(
    "password|passwd|secret|token|authorization|cookie|private|preimage|psk|app_?key|nwk_?key|api_?key|signing_?key",
    re.IGNORECASE,
)
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',]+"), r"\1 [secret]"),
    (re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s@/]+@"), r"\1:[secret]@"),
    (re.compile(r"(?i)\b((?:password|secret|token|api[_-]?key)\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"',&;]+"), r"\1[secret]"),
)
HIDDEN = "[secret]"


def request_id_from(header: str | None) -> str:
    """The caller's id where it is one word of 8 to 64 letters, digits, dots, dashes and underscores; else a new one."""
    return header if header and _WELL_FORMED.fullmatch(header) else secrets.token_hex(8)


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values under secret names, and secrets inside text, give way to `[secret]`."""
    for name, value in event.items():
        if name.startswith("_"):
            continue  # ProcessorFormatter's own
        event[name] = HIDDEN if _SECRET_NAME.search(name) else _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        for pattern, instead in _PATTERNS:
            value = pattern.sub(instead, value)
        return value
    if isinstance(value, dict):
        return {
            name: HIDDEN if isinstance(name, str) and _SECRET_NAME.search(name) else _clean(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(part) for part in value]
    return value


SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def logging_settings(level: str) -> dict[str, Any]:
    """Django's LOGGING: one JSON object a line on standard error, whoever logs."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "lines": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": SHARED,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    hide_secrets,
                    structlog.processors.JSONRenderer(default=str),
                ],
            },
        },
        "handlers": {"standard_error": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "root": {"handlers": ["standard_error"], "level": level},
        "loggers": {
            # Each wake-up would be two lines a second and queue; the tasks say themselves what they did.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
            "celery.beat": {"level": "WARNING"},
        },
    }


def configure() -> None:
    """structlog hands its events to `logging`, where the formatter renders and cleans them."""
    structlog.configure(
        processors=[*SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
