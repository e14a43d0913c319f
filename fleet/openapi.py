"""The description of the API says of every operation which errors it answers, in one way for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

from fleet.problems import CONTENT_TYPE

Operation = dict[str, Any]
_METHODS = {"get", "put", "post", "delete", "patch"}

PROBLEM = {
    "title": "Problem",
    "description": "Problem details (RFC 9457). field, fix, position and errors say what to mend, where that is known.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
        "fix": {"type": "string"},
        "position": {"type": "integer"},
        "line": {"type": "integer"},
        "column": {"type": "integer"},
        "expected": {"type": "array", "items": {"type": "string"}},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


@dataclass(frozen=True)
class Described:
    path: str
    method: str
    operation: Operation

    @property
    def guarded(self) -> bool:
        return bool(self.operation.get("security"))

    @property
    def has_body(self) -> bool:
        return "requestBody" in self.operation

    @property
    def takes_input(self) -> bool:
        return self.has_body or bool(self.operation.get("parameters"))


# What each status means, and which operations answer it.
ERRORS: dict[int, tuple[str, Callable[[Described], bool]]] = {
    400: ("The body cannot be read.", lambda one: one.has_body),
    401: ("No live token came with the request.", lambda one: one.guarded),
    403: ("The token lacks the scope, or its user the role.", lambda one: one.guarded),
    404: ("What the address or the body names does not exist.", lambda one: "{" in one.path or one.has_body),
    409: ("It contradicts the state as it is now.", lambda one: one.method != "get"),
    413: ("The body is larger than the server reads.", lambda one: one.has_body),
    422: ("A value is refused; field and errors say which.", lambda one: one.takes_input),
    429: ("Too many requests with bad tokens came from this address; see Retry-After.", lambda one: one.guarded),
    503: ("The server cannot answer now; see Retry-After.", lambda one: True),
}


def _operations(schema: OpenAPISchema) -> Iterator[Described]:
    for path, methods in schema["paths"].items():
        for method in _METHODS & methods.keys():
            yield Described(path, method, methods[method])


class DescribedApi(NinjaAPI):
    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        schema = super().get_openapi_schema(path_prefix=path_prefix, path_params=path_params)
        schema["components"].setdefault("schemas", {})["Problem"] = PROBLEM
        content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for one in _operations(schema):
            responses = one.operation["responses"]
            for status, (meaning, applies) in ERRORS.items():
                if applies(one) and not {status, str(status)} & responses.keys():
                    described: dict[str, Any] = {
                        "description": f"{HTTPStatus(status).phrase}. {meaning}",
                        "content": content,
                    }
                    if status in (429, 503):
                        described["headers"] = {
                            "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
                        }
                    responses[status] = described
        return schema
