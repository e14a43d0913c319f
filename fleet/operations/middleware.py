"""Each request gets an id, a line in the log and a place in the histogram of durations."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from fleet.operations.logs import HEADER, request_id_from
from fleet.operations.requests import observe_request

log = structlog.get_logger(__name__)
# Asked every few seconds by machines: a line each would bury the rest.
_QUIET = ("/health/", "/metrics", "/static/")


class RequestMiddleware:
    """Outermost, so that every answer carries the id and every line of a request names it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        request_id = request_id_from(request.headers.get(HEADER))
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = self.get_response(request)
        took = time.monotonic() - began
        match = request.resolver_match
        # The name of a view, never the path: its ids would make a series each.
        view = (match.view_name or match.route) if match else "none"
        observe_request(view=view, status=response.status_code, seconds=took)
        if not request.path.startswith(_QUIET):
            user = getattr(request, "user", None)
            log.info(
                "request",
                method=request.method,
                view=view,
                status=response.status_code,
                duration_ms=round(1000 * took, 1),
                user_id=user.pk if user is not None and user.is_authenticated else None,
                **{name: value for name, value in (match.kwargs if match else {}).items() if name in _BOUND},
            )
        response[HEADER] = request_id
        return response

    def process_view(
        self, request: HttpRequest, view: object, arguments: object, named: dict[str, object]
    ) -> HttpResponse | None:
        structlog.contextvars.bind_contextvars(**{name: named[name] for name in _BOUND if name in named})
        return None


@receiver(request_finished)
def _forget(**kwargs: object) -> None:
    # Not in the middleware: Django writes its own line about an error after all middleware.
    structlog.contextvars.clear_contextvars()


_BOUND = ("campaign_id", "node_id", "version_id")
