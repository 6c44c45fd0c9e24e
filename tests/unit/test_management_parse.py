"""Bodies and query strings of the management API, and its shapes: strict, and named in every refusal."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    DeadlineExceeded,
    FailedPrecondition,
    Fault,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from edge.management import convert, shapes
from edge.management.faults import request_error
from edge.management.parse import Query, moment_from_text, read_body
from edge.openai.errors import RequestError
from edge.reference.openapi import openapi_document
from edge.reference.pages import documentation, documentation_dir, llms_txt
from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2

NOW = datetime(2027, 3, 15, 12, 30, tzinfo=UTC)


def refused(body: bytes, shape: type[Any] = shapes.KeyCreate) -> tuple[str | None, str]:
    with pytest.raises(RequestError) as caught:
        read_body(body, shape)
    assert caught.value.status == 400
    return caught.value.param, caught.value.message


def test_a_refusal_says_which_field_and_what_would_be_right() -> None:
    assert refused(b"{}") == ("name", "`name` is missing.")
    assert refused(b'{"name":"n","colour":1}') == ("colour", "`colour` is not a field of this request.")
    assert refused(b'{"name":"n","limits":{"x":1}}') == ("limits.x", "`limits.x` is not a field of this request.")
    assert refused(b'{"name":1}') == ("name", "`name`: expected `str`, got `int`.")
    assert refused(b'{"name":"n","scopes":["inference",7]}')[0] == "scopes[1]"
    assert refused(b"[]")[0] is None
    scopes = "`scopes[0]`: give `inference`, `management` or both."
    assert refused(b'{"name":"n","scopes":["admin"]}') == ("scopes[0]", scopes)
    assert refused(b'{"name":"n","scopes":[]}') == ("scopes", "`scopes`: expected `array` of length >= 1.")
    for period in ("1", '"year"'):
        body = b'{"name":"n","spend_limit":{"amount_usd":"1","period":%s}}' % period.encode()
        assert refused(body) == ("spend_limit.period", "`spend_limit.period`: give `day` or `month`.")
    for amount in ("5", '"-5"', '"1e3"', '"0.0000000001"', "null"):
        body = b'{"name":"n","spend_limit":{"amount_usd":%s,"period":"day"}}' % amount.encode()
        assert refused(body) == ("spend_limit.amount_usd", f"`spend_limit.amount_usd`: {shapes.CHOICES['amount_usd']}.")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_body_or_a_refusal(body: bytes) -> None:
    try:
        read = read_body(body, shapes.KeyRotate)
    except RequestError:
        return
    assert isinstance(read, shapes.KeyRotate)


def test_what_a_change_does_not_name_stays() -> None:
    update = read_body(b'{"expires_at": null, "log_inputs": false}', shapes.KeyUpdate)
    assert convert.update_paths(update) == ["expire_time", "log_inputs"]
    assert convert.key_to_pb(update) == auth_pb2.Key()
    everything = read_body(
        b'{"name":"n","scopes":["management"],"expires_at":5,"models":["m"],"limits":{"requests_per_minute":3},'
        b'"spend_limit":{"amount_usd":"2.5","period":"month"},"log_inputs":true,"log_outputs":true,"retention_days":9}',
        shapes.KeyUpdate,
    )
    key = convert.key_to_pb(everything)
    assert {field.name for field, _ in key.ListFields()} == set(convert.update_paths(everything))
    assert (key.spend_limit.limit_nanousd, key.spend_limit.period) == (2_500_000_000, auth_pb2.SPEND_PERIOD_MONTH)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("253402300799", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("253402300800", None),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T01:00:00+01:00", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31t00:00:00z", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T00:00:00", None),
        ("2027-02-30", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("20270131", datetime.fromtimestamp(20270131, UTC)),
        ("2027-W01-1", None),
        ("1e3", None),
        ("-1", None),
        ("", None),
        ("\u0661", None),
    ],
)
def test_a_moment_is_unix_seconds_a_day_or_rfc_3339(text: str, moment: datetime | None) -> None:
    assert moment_from_text(text) == moment


@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    found = moment_from_text(text)
    assert found is None or found.utcoffset() == timedelta(0)


def test_a_parameter_is_known_single_and_within_its_bounds() -> None:
    query = Query("limit=7&key=k%20y&flag=true&by=b,a", ("limit", "key", "flag", "by", "other"))
    assert (query.page_size(), query.text("key", 9), query.flag("flag")) == (7, "k y", True)
    assert query.choices("by", {"a": 1, "b": 2}) == [2, 1]
    assert (query.text("other", 9), query.flag("other"), query.moment("other")) == ("", False, None)
    for text in ("a=1&a=2", "b=1", "a=%00", "a=%ff"):
        with pytest.raises(RequestError):
            Query(text, ("a",))


FAULTS: list[tuple[Fault, int, str | None]] = [
    (NotFound("KEY_NOT_FOUND", "m"), 404, None),
    (PermissionDenied("MANAGER_NOT_WORKING", "m"), 401, "INVALID_API_KEY"),
    (PermissionDenied("MANAGER_SUSPENDED", "m"), 403, "PERMISSION_DENIED"),
    (PermissionDenied("MANAGER_OUT_OF_SCOPE", "m"), 403, "PERMISSION_DENIED"),
    (FailedPrecondition("LAST_MANAGEMENT_KEY", "m"), 400, "last_management_key"),
    (FailedPrecondition("KEY_EXPIRED", "m"), 400, "key_not_working"),
    (FailedPrecondition("SOMETHING_NEW", "m"), 500, None),
    (ResourceExhausted("TOO_MANY_KEYS", "m"), 400, "too_many_keys"),
    (ResourceExhausted("TOO_MANY_ROWS", "m"), 400, "invalid_request_error"),
    (Unavailable("UNAVAILABLE", "m"), 503, None),
    (DeadlineExceeded("DEADLINE_EXCEEDED", "m"), 503, None),
    (Internal("INTERNAL", "m"), 500, None),
]


@pytest.mark.parametrize(("fault", "status", "code"), FAULTS, ids=str)
def test_a_services_refusal_becomes_the_apis(fault: Fault, status: int, code: str | None) -> None:
    error = request_error(fault)
    assert (error.status, error.code) == (status, code)
    assert (error.retry_after_s is not None) is (status == 503)


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("key.name", "name"),
        ("key.allowed_models[3]", "models[3]"),
        ("key.expire_time", "expires_at"),
        ("expire_time", "expires_at"),
        ("key.log_retention_days", "retention_days"),
        ("key.limits.tier", "limits.tier"),
        ("overlap", "overlap_seconds"),
        ("after_key_id", "after"),
        ("after_request_id", "after"),
    ],
)
def test_a_contracts_field_is_named_as_the_api_names_it(field: str, param: str) -> None:
    error = request_error(InvalidArgument(field, "give another"))
    assert (error.param, error.message) == (param, f"`{param}`: give another.")


def test_an_amount_that_a_service_refuses_is_spoken_of_in_usd() -> None:
    error = request_error(InvalidArgument("key.spend_limit.limit_nanousd", "0: give 1 to 10 nano-USD"))
    assert (error.param, "USD as a text" in error.message, "nano" in error.message) == (
        "spend_limit.amount_usd",
        True,
        False,
    )


def test_a_months_spending_is_charges_minus_refunds_by_day() -> None:
    midnight = int(NOW.replace(hour=0, minute=0).timestamp())
    days = [
        usage_pb2.UsageRow(charged_nanousd=700, refunded_nanousd=50),
        usage_pb2.UsageRow(charged_nanousd=30, refunded_nanousd=4),
    ]
    days[0].period_start_time.FromSeconds(midnight - 86_400)
    days[1].period_start_time.FromSeconds(midnight)
    balance = convert.balance_from_pb(usage_pb2.Balance(posted_nanousd=-1), days, NOW)
    assert balance.balance_usd == "-0.000000001"
    assert (balance.spent_today_usd, balance.spent_this_month_usd) == ("0.000000026", "0.000000676")


def test_a_word_that_only_a_newer_service_knows_is_unknown() -> None:
    event = usage_pb2.UsageEvent(request_id="r")
    event.MergeFromString(usage_pb2.UsageEvent(outcome=usage_pb2.OUTCOME_MEASURED).SerializeToString())
    event.MergeFromString(b"\x68\x63")  # field 13, outcome: 99
    shown = convert.request_from_pb(usage_pb2.RequestSummary(event=event))
    assert shown.outcome == "unknown"


def test_every_schema_that_the_document_names_is_in_it() -> None:
    document = openapi_document()
    text = repr(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}'" in text, f"{name} is not used"
    for part in text.split("#/components/schemas/")[1:]:
        assert part.partition("'")[0] in document["components"]["schemas"]


def test_the_index_works_without_the_pages() -> None:
    assert "/openapi.json" in llms_txt({})
    assert "## Docs" not in llms_txt(documentation(None))
    assert "](/docs/http-api.md): " in llms_txt(documentation(documentation_dir()))
