"""Between the contracts' messages and the API's shapes."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import UNSET

from edge.management import shapes
from edge.openai import errors
from pricing.usd import nanousd_from_usd, usd_from_nanousd
from protos.auth.v1 import auth_pb2
from protos.usage.v1 import usage_pb2

_SCOPES: Mapping[shapes.ScopeName, auth_pb2.Scope.ValueType] = {
    "inference": auth_pb2.SCOPE_INFERENCE,
    "management": auth_pb2.SCOPE_MANAGEMENT,
}
_PERIODS: Mapping[Literal["day", "month"], auth_pb2.SpendPeriod.ValueType] = {
    "day": auth_pb2.SPEND_PERIOD_DAY,
    "month": auth_pb2.SPEND_PERIOD_MONTH,
}
_PATHS = {"expires_at": "expire_time", "models": "allowed_models", "retention_days": "log_retention_days"}
ENDPOINTS = {
    usage_pb2.RESOURCE_CHAT_COMPLETIONS: "/v1/chat/completions",
    usage_pb2.RESOURCE_RESPONSES: "/v1/responses",
}


# ---- keys ----


def key_to_pb(key: shapes.KeyCreate | shapes.KeyUpdate) -> auth_pb2.Key:
    """What a body says of a key; what it does not name is left out.

    Raises:
        RequestError: 400: an amount that cannot be.
    """
    values: dict[str, Any] = {
        "name": key.name,
        "scopes": UNSET if key.scopes is UNSET else [_SCOPES[scope] for scope in key.scopes],
        "allowed_models": key.models,
        "expire_time": moment_to_pb(key.expires_at) if isinstance(key.expires_at, int) else None,
        "log_inputs": key.log_inputs,
        "log_outputs": key.log_outputs,
        "log_retention_days": key.retention_days,
        "limits": _limits_to_pb(key.limits) if isinstance(key.limits, shapes.Limits) else None,
        "spend_limit": _spend_limit_to_pb(key.spend_limit) if isinstance(key.spend_limit, shapes.SpendLimit) else None,
    }
    return auth_pb2.Key(**{name: value for name, value in values.items() if value is not UNSET and value is not None})


def update_paths(update: shapes.KeyUpdate) -> list[str]:
    """The contract's names of the fields that a body names."""
    return [_PATHS.get(name, name) for name in update.__struct_fields__ if getattr(update, name) is not UNSET]


def key_from_pb(key: auth_pb2.Key, last_used_at: int | None, now: datetime) -> shapes.Key:
    """A key as the API shows it."""
    return shapes.Key(**_key_members(key, last_used_at, now))


def new_key_from_pb(key: auth_pb2.Key, secret: str, now: datetime) -> shapes.KeyWithSecret:
    """A key that was just made."""
    return shapes.KeyWithSecret(**_key_members(key, None, now), secret=secret)


def rotated_key_from_pb(
    answer: auth_pb2.RotateOwnKeyResponse, last_used_at: int | None, now: datetime
) -> shapes.KeyRotated:
    """A key that replaces another one."""
    old = key_from_pb(answer.rotated_key, last_used_at, now)
    return shapes.KeyRotated(**_key_members(answer.key, None, now), secret=answer.secret, rotated_key=old)


def _key_members(key: auth_pb2.Key, last_used_at: int | None, now: datetime) -> dict[str, Any]:
    expires_at, revoked_at = _moment(key, "expire_time"), _moment(key, "revoke_time")
    expired = key.HasField("expire_time") and key.expire_time.ToDatetime(UTC) <= now
    return {
        "id": key.key_id,
        "name": key.name,
        "redacted_value": f"{key.public_prefix}...",
        "status": "revoked" if revoked_at is not None else "expired" if expired else "active",
        "scopes": [name for name, scope in _SCOPES.items() if scope in key.scopes],
        "created_at": key.create_time.seconds,
        "expires_at": expires_at,
        "revoked_at": revoked_at,
        "last_used_at": last_used_at,
        "models": list(key.allowed_models) or None,
        "limits": _limits_from_pb(key.limits) if key.HasField("limits") else None,
        "spend_limit": _spend_limit_from_pb(key.spend_limit) if key.HasField("spend_limit") else None,
        "log_inputs": key.log_inputs,
        "log_outputs": key.log_outputs,
        "retention_days": key.log_retention_days or None,
    }


def _limits_to_pb(limits: shapes.Limits) -> auth_pb2.KeyLimits:
    return auth_pb2.KeyLimits(
        tier=limits.tier or "",
        requests_per_minute=limits.requests_per_minute or 0,
        tokens_per_minute=limits.tokens_per_minute or 0,
        concurrent_requests=limits.concurrent_requests or 0,
    )


def _limits_from_pb(limits: auth_pb2.KeyLimits) -> shapes.Limits:
    return shapes.Limits(
        tier=limits.tier or None,
        requests_per_minute=limits.requests_per_minute or None,
        tokens_per_minute=limits.tokens_per_minute or None,
        concurrent_requests=limits.concurrent_requests or None,
    )


def _spend_limit_to_pb(limit: shapes.SpendLimit) -> auth_pb2.SpendLimit:
    try:
        amount = nanousd_from_usd(limit.amount_usd)
    except ValueError as error:
        raise errors.invalid_request(f"`spend_limit.amount_usd`: {error}.", param="spend_limit.amount_usd") from None
    return auth_pb2.SpendLimit(limit_nanousd=amount, period=_PERIODS[limit.period])


def _spend_limit_from_pb(limit: auth_pb2.SpendLimit) -> shapes.SpendLimit:
    period = next(name for name, number in _PERIODS.items() if number == limit.period)
    return shapes.SpendLimit(amount_usd=usd_from_nanousd(limit.limit_nanousd), period=period)


# ---- money and usage ----


def balance_from_pb(balance: usage_pb2.Balance, days: Iterable[usage_pb2.UsageRow], now: datetime) -> shapes.Balance:
    """Where the account stands. `days` are this month's rows by day."""
    spent = {row.period_start_time.seconds: row.charged_nanousd - row.refunded_nanousd for row in days}
    today = int(now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp())
    return shapes.Balance(
        balance_usd=usd_from_nanousd(balance.posted_nanousd),
        held_usd=usd_from_nanousd(balance.reserved_nanousd),
        available_usd=usd_from_nanousd(balance.available_nanousd),
        grace_usd=usd_from_nanousd(balance.grace_nanousd),
        credits_usd=usd_from_nanousd(balance.credited_nanousd),
        spent_today_usd=usd_from_nanousd(spent.get(today, 0)),
        spent_this_month_usd=usd_from_nanousd(sum(spent.values())),
    )


def usage_list_from_pb(rows: Iterable[usage_pb2.UsageRow], period_s: int) -> shapes.UsageList:
    """Rows and their sums; `period_s` is the length of a period, 0 where they are not grouped by time."""
    listed = list(rows)
    total = usage_pb2.UsageRow()
    for row in listed:
        total.requests += row.requests
        total.errors += row.errors
        total.charged_nanousd += row.charged_nanousd
        total.refunded_nanousd += row.refunded_nanousd
        for name in _COUNTED:
            setattr(total.tokens, name, getattr(total.tokens, name) + getattr(row.tokens, name))
    return shapes.UsageList(
        data=[_usage_row_from_pb(row, period_s) for row in listed], total=shapes.UsageSums(**_sums(total))
    )


_COUNTED = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


def _usage_row_from_pb(row: usage_pb2.UsageRow, period_s: int) -> shapes.UsageRow:
    start = _moment(row, "period_start_time")
    return shapes.UsageRow(
        **_sums(row),
        start_time=start,
        end_time=None if start is None else start + period_s,
        model=row.model_id or None,
        key_id=row.key_id or None,
    )


def _sums(row: usage_pb2.UsageRow) -> dict[str, Any]:
    return {
        "requests": row.requests,
        "errors": row.errors,
        **{name: getattr(row.tokens, name) for name in _COUNTED},
        "cost_usd": usd_from_nanousd(row.charged_nanousd),
        "refunded_usd": usd_from_nanousd(row.refunded_nanousd),
    }


# ---- requests ----


def request_from_pb(summary: usage_pb2.RequestSummary) -> shapes.FinishedRequest:
    """A finished request as its customer sees it: without our deployments and their attempts."""
    event = summary.event
    tokens = event.tokens
    return shapes.FinishedRequest(
        id=event.request_id,
        created_at=event.admit_time.seconds,
        completed_at=event.end_time.seconds,
        endpoint=ENDPOINTS.get(event.resource, ""),
        model=event.model_id,
        key_id=event.key_id,
        status=event.status_code,
        ending=_word(usage_pb2.Ending, event.ending, "ENDING_"),
        outcome=_word(usage_pb2.Outcome, event.outcome, "OUTCOME_"),
        usage_source=_word(usage_pb2.UsageSource, event.source, "USAGE_SOURCE_"),
        streamed=event.streamed,
        usage=shapes.RequestTokens(**{name: getattr(tokens, name) for name in shapes.RequestTokens.__struct_fields__}),
        price=_price_from_pb(event.price) if event.price.price_version else None,
        cost_usd=usd_from_nanousd(summary.charged_nanousd),
        refunded_usd=usd_from_nanousd(summary.refunded_nanousd),
        refunds=[
            shapes.Refund(usd_from_nanousd(each.amount_nanousd), each.reason, each.create_time.seconds)
            for each in summary.refunds
        ],
        time_to_first_byte_ms=event.first_byte_ms or None,
        duration_ms=event.duration_ms,
    )


def _price_from_pb(price: usage_pb2.PriceVector) -> shapes.RequestPrice:
    units = ("prompt", "completion", "input_cache_read", "input_cache_write", "image", "request")
    return shapes.RequestPrice(price.price_version, *(getattr(price, unit) or None for unit in units))


def _word(enum: Any, number: int, prefix: str) -> Any:
    try:
        return cast("str", enum.Name(number)).removeprefix(prefix).lower()
    except ValueError:  # a newer usage_svc knows more
        return "unknown"


# ---- moments ----


def moment_to_pb(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


def optional_moment_to_pb(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def duration_to_pb(seconds: int) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _moment(message: auth_pb2.Key | usage_pb2.UsageRow, field: Any) -> int | None:
    return cast("int", getattr(message, field).seconds) if message.HasField(field) else None
