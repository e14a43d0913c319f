"""Errors of the API as problem details (RFC 9457), whoever made them: a view, Django's routing, or a crash."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

CONTENT_TYPE = "application/problem+json"
_API = "/api/"


def problem(status: int, detail: str, **more: Any) -> HttpResponse:
    """`more` holds members besides those of the standard: field, fix, position, errors."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JsonResponse(content, status=status, content_type=CONTENT_TYPE)


class ProblemMiddleware:
    """Turns every error under /api/ that is none yet into a problem, and refuses bodies over the limit unread."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith(_API):
            return self.get_response(request)
        declared = request.META.get("CONTENT_LENGTH") or "0"
        if declared.isdigit() and int(declared) > settings.UPLOAD_MAX_BYTES:
            return problem(
                413,
                f"The request declares {declared} bytes, at most {settings.UPLOAD_MAX_BYTES} are read.",
                field="Content-Length",
                fix="Send smaller files.",
            )
        response = self.get_response(request)
        if response.status_code < 400 or response["Content-Type"] == CONTENT_TYPE:
            return response
        details = {
            404: f"Nothing is at {request.path}.",
            405: f"{request.method} is not allowed here; use {response.get('Allow', 'another method')}.",
            500: "The server failed; the log has the reason.",
        }
        made = problem(response.status_code, details.get(response.status_code, response.reason_phrase))
        if "Allow" in response:
            made["Allow"] = response["Allow"]
        return made
