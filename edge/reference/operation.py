"""The parts of which every operation in the OpenAPI document is made."""

from typing import Any

Json = dict[str, Any]

_ERROR_CONTENT: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_WHY = {
    "400": "A field or parameter is unknown, missing or wrong; `param` names it.",
    "401": "No working API key.",
    "402": "The account's balance is used up.",
    "403": "The key's scope does not cover this, or the account is suspended.",
    "404": "There is no such thing in this account.",
    "408": "The request did not arrive in time.",
    "409": "Another request with this Idempotency-Key is being served, or was finished and its answer not kept.",
    "413": "The body is too large.",
    "415": "The request has a Content-Encoding.",
    "417": "An Expect header other than 100-continue.",
    "422": "This Idempotency-Key was used for another endpoint or body.",
    "429": "A limit is reached, or what is left is held by requests in flight; `retry-after` says for how long.",
    "500": "A fault of this service.",
    "502": "The model's server did not give a usable answer.",
    "503": "What is needed cannot be had right now; with `retry-after`.",
    "504": "The model's server did not answer in time.",
}
_REQUEST_ID: Json = {
    "x-request-id": {
        "description": "Names this request in logs and, for generations, in /v1/requests.",
        "required": True,
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER: Json = {
    "retry-after": {
        "description": "Whole seconds, at most 60, after which the same request is worth sending again.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 60},
    }
}
_RATES: Json = {
    f"x-ratelimit-{what}-{kind}": {
        "description": f"{said} {kind} per minute of this key; absent where it has no such limit.",
        "schema": schema,
    }
    for kind in ("requests", "tokens")
    for what, said, schema in (
        ("limit", "The limit of", {"type": "integer", "minimum": 1}),
        ("remaining", "What may still be used at once of the", {"type": "integer", "minimum": 0}),
        (
            "reset",
            "In how long all of it may be used again, as `12ms`, `1s`, `6m0s`, of the",
            {"type": "string", "pattern": r"^([0-9]+m)?[0-9]+(\.[0-9]+)?(ms|s)$"},
        ),
    )
}
READ_ERRORS = ("400", "401", "403", "429", "500", "503")
WRITE_ERRORS = (*READ_ERRORS, "408", "413", "415", "417")


def ref(name: str) -> Json:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def json_content(schema: Json) -> Json:
    """A JSON body."""
    return {"application/json": {"schema": schema}}


def responses(description: str, content: Json, errors: tuple[str, ...], *, generates: bool = False) -> Json:
    """200 and the errors that the edge answers by itself. What generates tells of the key's rates, whatever it answers
    once the key is known."""
    rates = _RATES if generates else {}
    found: Json = {"200": {"description": description, "headers": {**_REQUEST_ID, **rates}, "content": content}}
    for status in sorted(errors):
        headers = {**_REQUEST_ID, **(_RETRY_AFTER if status in ("429", "503") else {})}
        if status not in ("401", "408"):
            headers |= rates
        found[status] = {"description": _WHY[status], "headers": headers, "content": _ERROR_CONTENT}
    return found


def parameter(name: str, place: str, schema: Json, description: str, *, required: bool = False) -> Json:
    """A query or path parameter."""
    return {"name": name, "in": place, "required": required, "schema": schema, "description": description}


def body(schema: Json, *, required: bool = True) -> Json:
    """A JSON request body."""
    return {"required": required, "content": json_content(schema)}
