"""The OpenAPI 3.1 document of the whole HTTP surface, made from the shapes that the handlers parse and answer.

tests/stack/test_openapi.py holds it to the running edge (schemathesis), and to the routes.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from edge.management import log_shapes, shapes
from edge.reference.generation_operations import GENERATION_PATHS, GENERATION_SCHEMAS
from edge.reference.management_operations import MANAGEMENT_PATHS

Json = dict[str, Any]

_SHAPES = (
    shapes.KeyCreate,
    shapes.KeyUpdate,
    shapes.KeyRotate,
    shapes.Key,
    shapes.KeyWithSecret,
    shapes.KeyRotated,
    shapes.KeyDeleted,
    shapes.KeyList,
    shapes.Balance,
    shapes.UsageList,
    shapes.FinishedRequest,
    shapes.RequestList,
    log_shapes.Log,
    log_shapes.LogList,
    log_shapes.LogDeleted,
    log_shapes.LogsDeleted,
)
_DESCRIPTION = (
    "An OpenAI-compatible API: change `base_url` and `api_key` in any OpenAI client. Keys with the scope `inference` "
    "generate, keys with the scope `management` manage the account. See /llms.txt for the pages that explain it."
)


@cache
def openapi_json() -> bytes:
    """The document, encoded once."""
    return msgspec.json.encode(openapi_document())


def openapi_document() -> Json:
    """The document."""
    _, components = msgspec.json.schema_components(_SHAPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tollgate", "version": _version(), "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [
            {"name": "generation", "description": "Chat Completions and Responses, passed to model servers verbatim."},
            {"name": "models", "description": "The live catalog."},
            {"name": "management", "description": "Keys, balance, usage, requests and logs of the account."},
            {"name": "service", "description": "Health, and this document. No key is needed."},
        ],
        "paths": {**GENERATION_PATHS, **MANAGEMENT_PATHS, **_SERVICE_PATHS},
        "components": {
            "schemas": {**components, **GENERATION_SCHEMAS, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `tg_...`."}},
        },
    }


def _version() -> str:
    try:
        return version("tollgate")
    except PackageNotFoundError:  # run from a checkout
        return "0"


_ERROR: Json = {
    "type": "object",
    "description": "Every error: all four members are always there.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field or parameter that is wrong."},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _public(summary: str, content: Json, **responses: Json) -> Json:
    found = {"200": {"description": summary, "content": content}, **responses}
    return {"get": {"tags": ["service"], "summary": summary, "security": [], "responses": found}}


_STATUS: Json = {"application/json": {"schema": {"type": "object"}}}
_NOT_READY: Json = {"description": "Something is missing; says what.", "content": _STATUS}
_SERVICE_PATHS: Json = {
    "/healthz": _public("The process answers", _STATUS),
    "/readyz": _public("The edge can serve", _STATUS, **{"503": _NOT_READY}),
    "/openapi.json": _public("This document", _STATUS),
    "/llms.txt": _public("An index of the documentation, for language models", {"text/plain": {}}),
}
