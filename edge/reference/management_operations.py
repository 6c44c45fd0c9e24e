"""The management API in the OpenAPI document."""

from edge.management.parse import ID_CHARS_MAX, MODEL_ID_CHARS_MAX, PAGE_DEFAULT, PAGE_MAX
from edge.reference.operation import (
    READ_ERRORS,
    WRITE_ERRORS,
    Json,
    body,
    json_content,
    parameter,
    ref,
    responses,
)

_TAGS = ["management"]
_OF_A_KEY = ("get_key", "update_key", "rotate_key", "delete_key")
_LIMIT = parameter(
    "limit",
    "query",
    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
    "How many at most.",
)
_AFTER = parameter(
    "after",
    "query",
    {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX},
    "Continues behind this id, a page's `last_id`.",
)
_MOMENT: Json = {
    "anyOf": [
        {"type": "string", "pattern": "^[0-9]{1,11}$"},
        {"type": "string", "format": "date"},
        {"type": "string", "format": "date-time"},
    ]
}
_FROM = parameter("from", "query", _MOMENT, "From then on: Unix seconds, a UTC day, or RFC 3339.")
_TO = parameter("to", "query", _MOMENT, "Before then.")
_MODEL = parameter(
    "model", "query", {"type": "string", "minLength": 1, "maxLength": MODEL_ID_CHARS_MAX}, "Only this model."
)
_KEY = parameter(
    "key", "query", {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX}, "Only the key with this id."
)


def _flag(name: str, description: str) -> Json:
    return parameter(name, "query", {"type": "boolean", "default": False}, description)


def _id(of: str) -> Json:
    schema = {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX, "pattern": "^[0-9A-Za-z_-]+$"}
    return parameter("id", "path", schema, f"The {of}'s id.", required=True)


def _operation(
    operation_id: str,
    summary: str,
    answer: Json,
    errors: tuple[str, ...],
    leads_to: tuple[str, ...] = (),
    **more: object,
) -> Json:
    """`leads_to`: operations whose path takes the id in this one's answer."""
    answers = responses(summary, answer, errors)
    if leads_to:
        answers["200"]["links"] = {
            each: {"operationId": each, "parameters": {"id": "$response.body#/id"}} for each in leads_to
        }
    return {"operationId": operation_id, "tags": _TAGS, "summary": summary, **more, "responses": answers}


_GROUP_BY = parameter(
    "group_by",
    "query",
    {
        "type": "array",
        "items": {"type": "string", "enum": ["day", "hour", "model", "key"]},
        "minItems": 1,
        "uniqueItems": True,
        "not": {"allOf": [{"contains": {"const": "day"}}, {"contains": {"const": "hour"}}]},
    },
    "What the rows are sums over: day or hour, model, key; with commas. One row over all unless given.",
) | {"style": "form", "explode": False}

MANAGEMENT_PATHS: Json = {
    "/v1/keys": {
        "get": _operation(
            "list_keys",
            "The account's keys, newest first",
            json_content(ref("KeyList")),
            READ_ERRORS,
            parameters=[_LIMIT, _AFTER, _flag("include_revoked", "Whether revoked keys are listed too.")],
        ),
        "post": _operation(
            "create_key",
            "A new key; its secret is shown this once",
            json_content(ref("KeyWithSecret")),
            WRITE_ERRORS,
            _OF_A_KEY,
            requestBody=body(ref("KeyCreate")),
        ),
    },
    "/v1/keys/{id}": {
        "parameters": [_id("key")],
        "get": _operation("get_key", "One key", json_content(ref("Key")), (*READ_ERRORS, "404")),
        "patch": _operation(
            "update_key",
            "The key as it now stands",
            json_content(ref("Key")),
            (*WRITE_ERRORS, "404"),
            requestBody=body({"allOf": [ref("KeyUpdate"), {"minProperties": 1}]}),
        ),
        "delete": _operation(
            "delete_key",
            "The key works no more, at every edge within a second",
            json_content(ref("KeyDeleted")),
            (*READ_ERRORS, "404"),
        ),
    },
    "/v1/keys/{id}/rotate": {
        "parameters": [_id("key")],
        "post": _operation(
            "rotate_key",
            "A new key with the terms of the old one, which goes on working for a while",
            json_content(ref("KeyRotated")),
            (*WRITE_ERRORS, "404"),
            _OF_A_KEY,
            requestBody=body(ref("KeyRotate"), required=False),
        ),
    },
    "/v1/balance": {
        "get": _operation("get_balance", "Where the account stands", json_content(ref("Balance")), READ_ERRORS)
    },
    "/v1/usage": {
        "get": _operation(
            "query_usage",
            "Exact sums of tokens, requests and cost",
            {**json_content(ref("UsageList")), "text/csv": {"schema": {"type": "string"}}},
            READ_ERRORS,
            parameters=[_FROM, _TO, _GROUP_BY, _MODEL, _KEY],
        )
    },
    "/v1/requests": {
        "get": _operation(
            "list_requests",
            "Finished requests, newest first",
            json_content(ref("RequestList")),
            READ_ERRORS,
            parameters=[
                _LIMIT,
                _AFTER,
                _FROM,
                _TO,
                _MODEL,
                _KEY,
                _flag("errors", "Only those with a status of 400 or more, or that broke off."),
            ],
        )
    },
    "/v1/requests/{id}": {
        "parameters": [_id("request")],
        "get": _operation(
            "get_request", "One finished request", json_content(ref("FinishedRequest")), (*READ_ERRORS, "404")
        ),
    },
    "/v1/logs": {
        "get": _operation(
            "list_logs",
            "What is kept of inputs and outputs, newest first, without the bodies",
            json_content(ref("LogList")),
            READ_ERRORS,
            parameters=[_LIMIT, _AFTER, _FROM, _TO, _MODEL, _KEY],
        ),
        "delete": _operation(
            "delete_logs",
            "Delete the logs of a time, those on their way included; give `from`, `to` or both",
            json_content(ref("LogsDeleted")),
            READ_ERRORS,
            parameters=[_FROM, _TO],
        ),
    },
    "/v1/logs/{id}": {
        "parameters": [_id("request")],
        "get": _operation("get_log", "One log with its bodies", json_content(ref("Log")), (*READ_ERRORS, "404")),
        "delete": _operation(
            "delete_log", "Delete a log at once", json_content(ref("LogDeleted")), (*READ_ERRORS, "404")
        ),
    },
}
