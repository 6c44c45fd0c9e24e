"""The table of every error that the edge itself answers: what docs/errors.md shows, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class ErrorRow(msgspec.Struct, frozen=True):
    """One row of the table: what the client gets, and (for the documentation) when."""

    status: int
    type: str
    code: str | None
    when: str
    message: str  # a str.format template; the constructors below fill it
    should_retry: bool | None = None  # SDKs retry 408, 409, 429 and >= 500 by themselves; None leaves it to them


ERRORS: Mapping[str, ErrorRow] = MappingProxyType(
    {
        "invalid_request": ErrorRow(
            400,
            "invalid_request_error",
            "invalid_request_error",
            "the body is not valid JSON or not an object; no `model`; a field that decides is given twice or has "
            "a wrong type; management: a field or parameter that is unknown, missing or wrong, named in `param`",
            "{detail}",
        ),
        "unknown_model": ErrorRow(
            400,
            "invalid_request_error",
            "invalid_request_error",
            "`model` is not in the catalog, or not in the key's allow-list; `valid_models` lists what is",
            "The model `{model}` is not available to this API key. Valid models: {valid}.",
        ),
        "unsupported_parameter": ErrorRow(
            400,
            "invalid_request_error",
            "unsupported_parameter",
            "a field that this service refuses, named in `param`, with the reason",
            "{detail}",
        ),
        "last_management_key": ErrorRow(
            400,
            "invalid_request_error",
            "last_management_key",
            "management: without this key nobody could manage the account any more",
            "This is the account's last working key with the `management` scope: it cannot be deleted, lose the scope "
            "or expire within a day. Create another one first.",
        ),
        "key_not_working": ErrorRow(
            400,
            "invalid_request_error",
            "key_not_working",
            "management: a key that was revoked, or has expired, cannot be changed so",
            "This cannot be done: {detail}.",
        ),
        "too_many_keys": ErrorRow(
            400,
            "invalid_request_error",
            "too_many_keys",
            "management: the account has as many keys as it may have",
            "No more keys can be made: {detail}.",
        ),
        "bad_http": ErrorRow(
            400,
            "invalid_request_error",
            "invalid_request_error",
            "the request is not valid HTTP",
            "The request is not valid HTTP: {detail}",
        ),
        "invalid_api_key": ErrorRow(
            401,
            "authentication_error",
            "INVALID_API_KEY",
            "the key is missing, malformed, unknown, revoked or expired: one and the same text",
            "Invalid API key. Send a valid key as `Authorization: Bearer <key>`.",
        ),
        "insufficient_balance": ErrorRow(
            402,
            "insufficient_quota",
            "INSUFFICIENT_BALANCE",
            "the account's funds are used up",
            "The account's balance is used up. {how_to_top_up}",
        ),
        "spend_limit_reached": ErrorRow(
            402,
            "insufficient_quota",
            "SPEND_LIMIT_REACHED",
            "the key's own spend limit is used up for this day or month, whatever its account has",
            "The spend limit of this API key is used up for this {period} (UTC). Raise the limit, or use another key.",
        ),
        "permission_denied": ErrorRow(
            403,
            "permission_error",
            "PERMISSION_DENIED",
            "the key's scope does not cover this endpoint, or the account is suspended",
            "{detail}",
        ),
        "not_found": ErrorRow(
            404, "invalid_request_error", None, "there is no such path", "There is no `{path}` here. {supported}"
        ),
        "model_not_found": ErrorRow(
            404,
            "invalid_request_error",
            None,
            "GET /v1/models/{id} of a model that is not live, or not in the key's allow-list",
            "There is no model `{model}` here. See GET /v1/models.",
        ),
        "resource_not_found": ErrorRow(
            404,
            "invalid_request_error",
            None,
            "management: this account has no key or request with this id, whether or not another one has",
            "There is nothing with this id in this account.",
        ),
        "method_not_allowed": ErrorRow(
            405,
            "invalid_request_error",
            None,
            "the path exists, the method does not; `allow` lists those that do",
            "`{method}` is not allowed on `{path}`. Allowed: {allow}.",
        ),
        "request_timeout": ErrorRow(
            408,
            "invalid_request_error",
            None,
            "the request did not arrive in time",
            "The request was not received within {limit_s} seconds.",
        ),
        "body_too_large": ErrorRow(
            413,
            "invalid_request_error",
            "request_too_large",
            "the body is over the limit",
            "The request body is larger than the limit of {limit_bytes} bytes.",
        ),
        "unsupported_encoding": ErrorRow(
            415,
            "invalid_request_error",
            None,
            "the request has a Content-Encoding",
            "Request bodies with `Content-Encoding: {encoding}` are not accepted. Send the body uncompressed.",
        ),
        "expectation_failed": ErrorRow(
            417,
            "invalid_request_error",
            None,
            "an Expect header other than 100-continue",
            "The only supported expectation is `Expect: 100-continue`.",
        ),
        "upgrade_required": ErrorRow(
            426,
            "invalid_request_error",
            None,
            "a WebSocket upgrade on /v1/responses",
            "WebSockets are not supported here. Use POST with `stream: true` over HTTP.",
        ),
        "headers_too_large": ErrorRow(
            431,
            "invalid_request_error",
            None,
            "the request's headers are over the limit",
            "The request headers are larger than the limit.",
        ),
        "idempotency_in_flight": ErrorRow(
            409,
            "invalid_request_error",
            "idempotency_in_flight",
            "another request with this `Idempotency-Key` is being served, or its outcome is not known; `retry-after`",
            "Request {request_id} has the same Idempotency-Key and is not finished yet. Retry after {retry_after_s} s.",
        ),
        "idempotency_finished": ErrorRow(
            409,
            "invalid_request_error",
            "idempotency_finished",
            "a request with this `Idempotency-Key` was finished, and its answer was not kept",
            "Request {request_id} has the same Idempotency-Key and was finished before. Its answer was not kept. Use a "
            "new key to ask, and pay, again.",
            should_retry=False,  # it would be answered the same for a day
        ),
        "idempotency_mismatch": ErrorRow(
            422,
            "invalid_request_error",
            "idempotency_mismatch",
            "this `Idempotency-Key` was used for another endpoint or body",
            "The Idempotency-Key was used for request {request_id}, which asked for something else. Use a new key.",
            should_retry=False,
        ),
        "rate_limited": ErrorRow(
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
            "the key's limits, with a true `retry-after`",
            "The rate limit of this API key is reached. {limit} Retry after {retry_after_s} s.",
        ),
        "tokens_over_limit": ErrorRow(
            400,
            "invalid_request_error",
            "tokens_over_limit",
            "the request could use more tokens than its key may use in a whole minute: waiting would not help",
            "This request can use up to {tokens} tokens, and this API key may use {limit} tokens per minute. Lower "
            "`max_tokens`, shorten the prompt, or ask for a higher limit.",
        ),
        "too_many_failed_keys": ErrorRow(
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
            "a key that is not known yet, from an address that has tried too many keys that do not exist",
            "Too many API keys that do not exist were tried from your address. Retry after {retry_after_s} s.",
        ),
        "funds_reserved": ErrorRow(
            429,
            "rate_limit_error",
            "funds_reserved",
            "what is left of the balance is held by requests in flight, with `retry-after`",
            "What is left of the account's balance is held by requests in flight. Retry after {retry_after_s} s, lower "
            "`max_tokens`, or add credit.",
        ),
        "internal_error": ErrorRow(
            500,
            "server_error",
            None,
            "a fault of this service",
            "Something went wrong here. Quote the x-request-id of this answer when you report it.",
            should_retry=False,  # a bug repeats, and the model may have generated already
        ),
        "upstream_error": ErrorRow(
            502,
            "server_error",
            "upstream_error",
            "the model's server answered garbage, or refused this service's own credentials",
            "The model's server did not give a usable answer.",
            should_retry=False,  # credentials do not heal in seconds, and garbage may follow a full generation
        ),
        "upstream_timeout": ErrorRow(
            504,
            "server_error",
            "upstream_timeout",
            "the model's server did not answer in time, after retries",
            "The model's server did not answer in time.",
            should_retry=False,  # it may still be generating; a retry would generate twice
        ),
        "unavailable": ErrorRow(
            503,
            "server_error",
            None,
            "no deployment of the model is configured or reachable, or state that is needed to serve cannot be had",
            "{detail} Retry after {retry_after_s} s.",
        ),
    }
)
