"""Every error that the edge itself answers, in OpenAI's shape: one small function per row of the table.

Upstream's own error bodies are not in here: they pass unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edge.openai.error_table import ERRORS

# SDKs ignore a retry-after above a minute and fall back to their own short back-off, which is worse than a minute.
RETRY_AFTER_MAX_S = 60
# What is echoed to the client (a model name, a field name) can be as long as the body; an error message should not be.
ECHO_CHARS_MAX = 120
# Past this many ids, the message and `valid_models` stop and the message points at GET /v1/models.
VALID_MODELS_MAX = 100


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


def spend_limit_reached(period: str) -> RequestError:
    return RequestError("spend_limit_reached", ERRORS["spend_limit_reached"].message.format(period=period))


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


def too_many_failed_keys(retry_after_s: int) -> RequestError:
    return _retry_later("too_many_failed_keys", retry_after_s)


def funds_reserved(retry_after_s: int) -> RequestError:
    return _retry_later("funds_reserved", retry_after_s)


def idempotency_in_flight(request_id: str, retry_after_s: int) -> RequestError:
    return _retry_later("idempotency_in_flight", retry_after_s, request_id=request_id)


def idempotency_finished(request_id: str) -> RequestError:
    return RequestError("idempotency_finished", ERRORS["idempotency_finished"].message.format(request_id=request_id))


def idempotency_mismatch(request_id: str) -> RequestError:
    return RequestError("idempotency_mismatch", ERRORS["idempotency_mismatch"].message.format(request_id=request_id))


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
