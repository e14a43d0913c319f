"""The root of the REST API: routers of every app, and what each of their errors means to a client."""

from __future__ import annotations

import structlog
from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from ninja.errors import AuthenticationError, HttpError, ValidationError

from devices.api import nodes as nodes_router
from devices.api import router as devices_router
from devices.labels import LabelError
from devices.links.lorawan.chirpstack import ChirpStackError
from devices.network_api import router as network_router
from devices.query import QueryError
from devices.registration import RegistrationRefused
from devices.relabelling import SelectionChanged
from fleet.accounts.api import router as tokens_router
from fleet.accounts.audit_api import router as audit_router
from fleet.accounts.authentication import TooManyBadTokens
from fleet.accounts.services import AccountRefused
from fleet.openapi import DescribedApi
from fleet.problems import problem
from updates.api import router as updates_router
from updates.campaigns.actions import ActionRefused
from updates.campaigns.api import attention as attention_router
from updates.campaigns.api import router as campaigns_router
from updates.campaigns.terms import PlanRefused
from updates.compiled_api import router as compiled_router
from updates.nodes_api import router as many_nodes_router
from updates.nodes_api import views as views_router
from updates.patches_api import router as patches_router
from updates.saved_views import ViewRefused
from updates.services import UploadConflict, UploadRefused

_log = structlog.get_logger(__name__)

api = DescribedApi(
    title="Modelfleet",
    version="1",
    urls_namespace="api",
    description="Errors are problem details (RFC 9457). Send `Authorization: Bearer <token>`; "
    "`manage.py create_token` makes one.",
)
api.add_router("", updates_router)
api.add_router("", devices_router)
api.add_router("", compiled_router)
api.add_router("/nodes", nodes_router)
api.add_router("/nodes", many_nodes_router)
api.add_router("/node-views", views_router)
api.add_router("/campaigns", campaigns_router)
api.add_router("/attention", attention_router)
api.add_router("/patches", patches_router)
api.add_router("/tokens", tokens_router)
api.add_router("/audit", audit_router)
api.add_router("/network-servers", network_router)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [
        {"field": ".".join(str(part) for part in one["loc"][1:]) or "body", "message": one["msg"]}
        for one in error.errors
    ]
    return problem(422, f"{errors[0]['field']}: {errors[0]['message']}", field=errors[0]["field"], errors=errors)


@api.exception_handler(AuthenticationError)
def _unauthenticated(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    response = problem(401, "No live token came with this request.", fix="Send Authorization: Bearer <token>.")
    response["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(TooManyBadTokens)
def _too_many(request: HttpRequest, error: TooManyBadTokens) -> HttpResponse:
    response = problem(
        429,
        f"Too many requests from this address carried a token that is not live; try again in {error.retry_after_s} s.",
        fix="Give whatever sends them a live token.",
    )
    response["Retry-After"] = str(error.retry_after_s)
    return response


@api.exception_handler(OperationalError)
def _unavailable(request: HttpRequest, error: OperationalError) -> HttpResponse:
    _log.error("database_unavailable", exc_info=error)
    response = problem(503, "The database does not answer.", fix="Try again in a few seconds.")
    response["Retry-After"] = "5"
    return response


@api.exception_handler(HttpError)
def _http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    return problem(error.status_code, str(error))


@api.exception_handler(Http404)
def _not_found(request: HttpRequest, error: Http404) -> HttpResponse:
    return problem(404, f"Nothing is at {request.path}.")


@api.exception_handler(UploadRefused)
def _upload_refused(request: HttpRequest, error: UploadRefused) -> HttpResponse:
    status = 409 if isinstance(error, UploadConflict) else 422
    return problem(status, str(error), field=error.field, fix=error.fix)


@api.exception_handler(RegistrationRefused)
def _registration_refused(request: HttpRequest, error: RegistrationRefused) -> HttpResponse:
    return problem(422, str(error), field=error.errors[0]["field"], errors=error.errors)


@api.exception_handler(QueryError)
def _query_error(request: HttpRequest, error: QueryError) -> HttpResponse:
    place = {"position": error.position, "line": error.line, "column": error.column}
    return problem(422, str(error), field="filter", **place, expected=list(error.expected), fix=error.fix)


@api.exception_handler(PlanRefused)
def _plan_refused(request: HttpRequest, error: PlanRefused) -> HttpResponse:
    return problem(422, str(error), field=error.field, fix=error.fix)


@api.exception_handler(ActionRefused)
def _action_refused(request: HttpRequest, error: ActionRefused) -> HttpResponse:
    return problem(409, str(error), fix=error.fix)


@api.exception_handler(LabelError)
def _label_error(request: HttpRequest, error: LabelError) -> HttpResponse:
    return problem(422, str(error), field="labels", value=error.value, fix=error.fix)


@api.exception_handler(SelectionChanged)
def _selection_changed(request: HttpRequest, error: SelectionChanged) -> HttpResponse:
    return problem(409, str(error), field="expected", found=error.found, fix=error.fix)


@api.exception_handler(ViewRefused)
def _view_refused(request: HttpRequest, error: ViewRefused) -> HttpResponse:
    status = 403 if error.field == "shared" else 422
    return problem(status, str(error), field=error.field, fix=error.fix)


@api.exception_handler(AccountRefused)
def _account_refused(request: HttpRequest, error: AccountRefused) -> HttpResponse:
    return problem(409, str(error), field=error.field, fix=error.fix)


@api.exception_handler(ChirpStackError)
def _chirpstack_error(request: HttpRequest, error: ChirpStackError) -> HttpResponse:
    # Not 502: this server answers, and says what stands in its way.
    return problem(409, str(error), field=error.field, fix=error.fix)
