"""Every error that the edge itself answers, in OpenAI's shape: one table, and one small function per row.

Upstream's own error bodies are not in here: they pass unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

# SDKs ignore a retry-after above a minute and fall back to their own short back-off, which is worse than a minute.
RETRY_AFTER_MAX_S = 60
# What is echoed to the client (a model name, a field name) can be as long as the body; an error message should not be.
ECHO_CHARS_MAX = 120
# Past this many ids, the message and `valid_models` stop and the message points at GET /v1/models.
VALID_MODELS_MAX = 100


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
            "This is the account's last working key with the `management` scope. Create another one first.",
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


class RequestError(Exception):
    """An error as the client will see it. `reason` is its row in ERRORS; `headers()` go beside the body."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
        should_retry: bool | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        row = ERRORS[reason]
        self.reason = reason
        self.status = row.status
        self.type = row.type
        self.code = row.code
        self.message = message
        self.param = param
        self.extra = extra or {}
        self.retry_after_s = retry_after_s
        self.should_retry = row.should_retry if should_retry is None else should_retry
        self.allow = allow

    def headers(self) -> dict[str, str]:
        """What the answer carries besides content-type and x-request-id; names in lower case."""
        headers: dict[str, str] = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        if self.should_retry is not None:
            headers["x-should-retry"] = "true" if self.should_retry else "false"
        if self.allow is not None:
            headers["allow"] = self.allow
        return headers


def echo(text: str) -> str:
    """The client's own words, short enough for a message."""
    return text if len(text) <= ECHO_CHARS_MAX else text[: ECHO_CHARS_MAX - 1] + "…"


# ---- one function per row ----


def invalid_request(detail: str, param: str | None = None) -> RequestError:
    return RequestError("invalid_request", detail, param=None if param is None else echo(param))


def unknown_model(model: str, valid_ids: Iterable[str]) -> RequestError:
    valid = sorted(valid_ids)
    listed = ", ".join(f"`{model_id}`" for model_id in valid[:VALID_MODELS_MAX]) or "none"
    if len(valid) > VALID_MODELS_MAX:
        listed += f" and {len(valid) - VALID_MODELS_MAX} more (GET /v1/models)"
    message = ERRORS["unknown_model"].message.format(model=echo(model), valid=listed)
    return RequestError("unknown_model", message, param="model", extra={"valid_models": valid[:VALID_MODELS_MAX]})


def unsupported_parameter(param: str, why: str) -> RequestError:
    param = echo(param)
    return RequestError("unsupported_parameter", f"`{param}` is not supported here: {why}.", param=param)


def bad_http(detail: str) -> RequestError:
    return RequestError("bad_http", ERRORS["bad_http"].message.format(detail=echo(detail)))


def invalid_api_key() -> RequestError:
    return RequestError("invalid_api_key", ERRORS["invalid_api_key"].message)


def insufficient_balance(how_to_top_up: str) -> RequestError:
    message = ERRORS["insufficient_balance"].message.format(how_to_top_up=how_to_top_up)
    return RequestError("insufficient_balance", message)


def permission_denied(detail: str) -> RequestError:
    return RequestError("permission_denied", detail)


def not_found(
    path: str, supported: str = "See GET /v1/models, POST /v1/chat/completions, POST /v1/responses."
) -> RequestError:
    return RequestError("not_found", ERRORS["not_found"].message.format(path=echo(path), supported=supported))


def model_not_found(model: str) -> RequestError:
    return RequestError("model_not_found", ERRORS["model_not_found"].message.format(model=echo(model)), param="model")


def method_not_allowed(method: str, path: str, allow: Iterable[str]) -> RequestError:
    allowed = ", ".join(allow)
    message = ERRORS["method_not_allowed"].message.format(method=echo(method), path=echo(path), allow=allowed)
    return RequestError("method_not_allowed", message, allow=allowed)


def request_timeout(limit_s: float) -> RequestError:
    return RequestError("request_timeout", ERRORS["request_timeout"].message.format(limit_s=f"{limit_s:g}"))


def body_too_large(limit_bytes: int) -> RequestError:
    return RequestError("body_too_large", ERRORS["body_too_large"].message.format(limit_bytes=limit_bytes))


def unsupported_encoding(encoding: str) -> RequestError:
    message = ERRORS["unsupported_encoding"].message.format(encoding=echo(encoding))
    return RequestError("unsupported_encoding", message)


def expectation_failed() -> RequestError:
    return RequestError("expectation_failed", ERRORS["expectation_failed"].message)


def upgrade_required() -> RequestError:
    return RequestError("upgrade_required", ERRORS["upgrade_required"].message)


def headers_too_large() -> RequestError:
    return RequestError("headers_too_large", ERRORS["headers_too_large"].message)


def rate_limited(limit: str, retry_after_s: int) -> RequestError:
    """`limit` is a sentence that says which one."""
    return _retry_later("rate_limited", retry_after_s, limit=limit)


def tokens_over_limit(tokens: int, limit: int) -> RequestError:
    message = ERRORS["tokens_over_limit"].message.format(tokens=tokens, limit=limit)
    return RequestError("tokens_over_limit", message)


def funds_reserved(retry_after_s: int) -> RequestError:
    return _retry_later("funds_reserved", retry_after_s)


def internal_error() -> RequestError:
    return RequestError("internal_error", ERRORS["internal_error"].message)


def upstream_error(should_retry: bool = False) -> RequestError:
    """`should_retry`: only when nothing can have been generated, e.g. the connection was refused."""
    return RequestError("upstream_error", ERRORS["upstream_error"].message, should_retry=should_retry)


def upstream_timeout() -> RequestError:
    return RequestError("upstream_timeout", ERRORS["upstream_timeout"].message)


def unavailable(detail: str, retry_after_s: int) -> RequestError:
    return _retry_later("unavailable", retry_after_s, detail=detail)


def _retry_later(reason: str, retry_after_s: int, **words: str) -> RequestError:
    retry_after_s = min(max(retry_after_s, 1), RETRY_AFTER_MAX_S)
    message = ERRORS[reason].message.format(retry_after_s=retry_after_s, **words)
    return RequestError(reason, message, retry_after_s=retry_after_s)


# ---- on the wire ----

_encode = msgspec.json.Encoder().encode


def _members(error: RequestError) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code, **error.extra}


def error_body(error: RequestError) -> bytes:
    """The answer's body: all four members, always, and whatever the row adds."""
    return _encode({"error": _members(error)})


def chat_error_event(error: RequestError) -> bytes:
    """The one event that ends a broken chat stream, in place of `[DONE]`."""
    return b"data: " + error_body(error) + b"\n\n"


def responses_error_event(error: RequestError, sequence_number: int) -> bytes:
    """The one event that ends a broken Responses stream: both forms in one, since clients read either."""
    data = {
        "type": "error",
        "sequence_number": sequence_number,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "error": _members(error),
    }
    return b"event: error\ndata: " + _encode(data) + b"\n\n"
