"""Errors in OpenAI's shape: every row of the table can be made, and carries all that SDKs read."""

import json
from collections.abc import Callable

import pytest

from edge.management import refusals
from edge.openai import errors
from edge.openai.error_table import ERRORS
from edge.openai.errors import RequestError

EXAMPLES: dict[str, Callable[[], RequestError]] = {
    "idempotency_in_flight": lambda: errors.idempotency_in_flight("01a2", 1),
    "idempotency_finished": lambda: errors.idempotency_finished("01a2"),
    "idempotency_mismatch": lambda: errors.idempotency_mismatch("01a2"),
    "invalid_request": lambda: errors.invalid_request("`model` is missing.", "model"),
    "unknown_model": lambda: errors.unknown_model("gpt-9", ["b", "a"]),
    "unsupported_parameter": lambda: errors.unsupported_parameter("background", "it is not metered"),
    "bad_http": lambda: errors.bad_http("invalid header"),
    "invalid_api_key": errors.invalid_api_key,
    "insufficient_balance": lambda: errors.insufficient_balance("Add credit in the console."),
    "permission_denied": lambda: errors.permission_denied("The account is suspended."),
    "resource_not_found": refusals.resource_not_found,
    "last_management_key": refusals.last_management_key,
    "key_not_working": lambda: refusals.key_not_working("the key was revoked"),
    "too_many_keys": lambda: refusals.too_many_keys("the account has 200 keys"),
    "model_not_found": lambda: errors.model_not_found("gpt-9"),
    "not_found": lambda: errors.not_found("/v1/embeddings"),
    "method_not_allowed": lambda: errors.method_not_allowed("GET", "/v1/responses", ["POST"]),
    "request_timeout": lambda: errors.request_timeout(30),
    "body_too_large": lambda: errors.body_too_large(20_971_520),
    "unsupported_encoding": lambda: errors.unsupported_encoding("gzip"),
    "expectation_failed": errors.expectation_failed,
    "upgrade_required": errors.upgrade_required,
    "headers_too_large": errors.headers_too_large,
    "too_many_failed_keys": lambda: errors.too_many_failed_keys(3),
    "spend_limit_reached": lambda: errors.spend_limit_reached("day"),
    "tokens_over_limit": lambda: errors.tokens_over_limit(700, 600),
    "rate_limited": lambda: errors.rate_limited("Sixty a minute.", 7),
    "funds_reserved": lambda: errors.funds_reserved(2),
    "internal_error": errors.internal_error,
    "upstream_error": errors.upstream_error,
    "upstream_timeout": errors.upstream_timeout,
    "unavailable": lambda: errors.unavailable("The model has no reachable deployment.", 5),
}


def test_every_row_has_an_example_here() -> None:
    assert EXAMPLES.keys() == ERRORS.keys()


@pytest.mark.parametrize("reason", ERRORS)
def test_every_row_becomes_a_body_with_all_four_members(reason: str) -> None:
    error = EXAMPLES[reason]()
    row = ERRORS[reason]
    body = json.loads(errors.error_body(error))
    assert body.keys() == {"error"}
    assert {"message", "type", "param", "code"} <= body["error"].keys()
    assert (error.reason, error.status, body["error"]["type"], body["error"]["code"]) == (
        reason,
        row.status,
        row.type,
        row.code,
    )
    assert body["error"]["message"]
    assert "{" not in body["error"]["message"]


@pytest.mark.parametrize(
    ("reason", "status", "type_", "code"),
    [
        ("invalid_request", 400, "invalid_request_error", "invalid_request_error"),
        ("unknown_model", 400, "invalid_request_error", "invalid_request_error"),
        ("unsupported_parameter", 400, "invalid_request_error", "unsupported_parameter"),
        ("invalid_api_key", 401, "authentication_error", "INVALID_API_KEY"),
        ("insufficient_balance", 402, "insufficient_quota", "INSUFFICIENT_BALANCE"),
        ("permission_denied", 403, "permission_error", "PERMISSION_DENIED"),
        ("not_found", 404, "invalid_request_error", None),
        ("method_not_allowed", 405, "invalid_request_error", None),
        ("body_too_large", 413, "invalid_request_error", "request_too_large"),
        ("unsupported_encoding", 415, "invalid_request_error", None),
        ("upgrade_required", 426, "invalid_request_error", None),
        ("rate_limited", 429, "rate_limit_error", "rate_limit_exceeded"),
        ("funds_reserved", 429, "rate_limit_error", "funds_reserved"),
        ("internal_error", 500, "server_error", None),
        ("upstream_error", 502, "server_error", "upstream_error"),
        ("unavailable", 503, "server_error", None),
        ("upstream_timeout", 504, "server_error", "upstream_timeout"),
    ],
)
def test_status_type_and_code_are_what_clients_were_promised(
    reason: str, status: int, type_: str, code: str | None
) -> None:
    row = ERRORS[reason]
    assert (row.status, row.type, row.code) == (status, type_, code)


def test_an_unknown_model_lists_the_valid_ones_in_the_message_and_beside_it() -> None:
    error = json.loads(errors.error_body(errors.unknown_model("gpt-9", {"b/two", "a/one"})))["error"]
    assert error["param"] == "model"
    assert error["valid_models"] == ["a/one", "b/two"]
    assert "`a/one`, `b/two`" in error["message"]
    assert "`gpt-9`" in error["message"]


def test_a_catalog_of_thousands_does_not_make_an_error_of_megabytes() -> None:
    error = errors.unknown_model("m" * 1_000_000, [f"model-{index:05}" for index in range(5_000)])
    assert len(errors.error_body(error)) < 10_000
    assert "4900 more" in error.message


def test_a_retry_after_is_between_one_second_and_what_sdks_honour() -> None:
    assert errors.rate_limited("", 0).headers() == {"retry-after": "1"}
    assert errors.rate_limited("", 3_600).headers() == {"retry-after": "60"}
    assert errors.funds_reserved(2).headers() == {"retry-after": "2"}
    assert errors.unavailable("No.", 5).headers() == {"retry-after": "5"}


def test_what_a_retry_would_generate_twice_says_so() -> None:
    for error in (errors.upstream_timeout(), errors.upstream_error(), errors.internal_error()):
        assert error.headers() == {"x-should-retry": "false"}
    assert errors.upstream_error(should_retry=True).headers() == {"x-should-retry": "true"}


def test_a_wrong_method_names_the_right_ones_in_the_header() -> None:
    error = errors.method_not_allowed("DELETE", "/v1/models", ["GET", "HEAD"])
    assert error.headers() == {"allow": "GET, HEAD"}


def test_a_broken_chat_stream_ends_with_one_error_event() -> None:
    event = errors.chat_error_event(errors.upstream_error())
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event[6:])["error"]["code"] == "upstream_error"


def test_a_broken_responses_stream_says_it_in_both_forms() -> None:
    event = errors.responses_error_event(errors.upstream_timeout(), sequence_number=17)
    name, data, *rest = event.split(b"\n")
    assert name == b"event: error"
    assert rest == [b"", b""]
    told = json.loads(data.removeprefix(b"data: "))
    assert told["type"] == "error"
    assert told["sequence_number"] == 17
    assert told["code"] == told["error"]["code"] == "upstream_timeout"
    assert told["message"] == told["error"]["message"]
    assert told["param"] is None
    assert told["error"].keys() == {"message", "type", "param", "code"}
