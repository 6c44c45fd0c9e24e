"""Between messages and our own values: the only file that knows both."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from auth_svc.accounts import Account, AccountChanges, AccountState
from auth_svc.change_feed import Heartbeat, Reset
from auth_svc.key_changes import KeyChange
from auth_svc.keys import Key, KeyChanges, KeyTerms, Scope
from auth_svc.limits import NO_LIMITS, KeyLimits, SpendLimit, SpendPeriod, Tiers, effective
from auth_svc.store import PresentedKey
from auth_svc.update_mask import validated_paths
from chassis.faults import InvalidArgument
from chassis.moments import datetime_from_pb, timedelta_from_pb
from protos.auth.v1 import auth_pb2 as pb

_STATE_TO_PB = {
    AccountState.ACTIVE: pb.ACCOUNT_STATE_ACTIVE,
    AccountState.SUSPENDED: pb.ACCOUNT_STATE_SUSPENDED,
}
_STATE_FROM_PB = {number: state for state, number in _STATE_TO_PB.items()}
_SCOPE_TO_PB = {Scope.INFERENCE: pb.SCOPE_INFERENCE, Scope.MANAGEMENT: pb.SCOPE_MANAGEMENT}
_SCOPE_FROM_PB = {number: scope for scope, number in _SCOPE_TO_PB.items()}
_PERIOD_TO_PB = {SpendPeriod.DAY: pb.SPEND_PERIOD_DAY, SpendPeriod.MONTH: pb.SPEND_PERIOD_MONTH}
_PERIOD_FROM_PB = {number: period for period, number in _PERIOD_TO_PB.items()}


def account_to_pb(account: Account) -> pb.Account:
    return pb.Account(
        account_id=account.account_id,
        name=account.name,
        state=_STATE_TO_PB[account.state],
        create_time=_moment_to_pb(account.create_time),
    )


def account_changes_from_pb(account: pb.Account, paths: Sequence[str]) -> AccountChanges:
    """The values of the masked fields.

    Raises:
        InvalidArgument: a mask or a value that cannot be.
    """
    return cast("AccountChanges", _masked(account, paths, _ACCOUNT_FIELDS))


def key_to_pb(key: Key, tiers: Tiers) -> pb.Key:
    terms = key.terms
    return pb.Key(
        key_id=key.key_id,
        account_id=key.account_id,
        name=terms.name,
        public_prefix=key.public_prefix,
        scopes=[_SCOPE_TO_PB[scope] for scope in terms.scopes],
        allowed_models=terms.allowed_models,
        expire_time=_optional_moment_to_pb(terms.expire_time),
        log_inputs=terms.log_inputs,
        log_outputs=terms.log_outputs,
        log_retention_days=terms.log_retention_days,
        create_time=_moment_to_pb(key.create_time),
        revoke_time=_optional_moment_to_pb(key.revoke_time),
        limits=_limits_to_pb(terms.limits, tiers),
        spend_limit=_spend_limit_to_pb(terms.spend_limit),
    )


def key_terms_from_pb(key: pb.Key) -> KeyTerms:
    """What the customer sets of a key.

    Raises:
        InvalidArgument: a scope, a period or a moment that does not exist. Nothing else is looked at yet.
    """
    return KeyTerms(**{name: read(key) for name, read in _KEY_FIELDS.items()})


def key_changes_from_pb(key: pb.Key, paths: Sequence[str]) -> KeyChanges:
    """The values of the masked fields.

    Raises:
        InvalidArgument: a mask or a value that cannot be.
    """
    return cast("KeyChanges", _masked(key, paths, _KEY_FIELDS))


def grant_to_pb(presented: PresentedKey, tiers: Tiers) -> pb.KeyGrant:
    key, terms = presented.key, presented.key.terms
    return pb.KeyGrant(
        key_id=key.key_id,
        account_id=key.account_id,
        account_state=_STATE_TO_PB[presented.account_state],
        scopes=[_SCOPE_TO_PB[scope] for scope in terms.scopes],
        allowed_models=terms.allowed_models,
        expire_time=_optional_moment_to_pb(terms.expire_time),
        log_inputs=terms.log_inputs,
        log_outputs=terms.log_outputs,
        log_retention_days=terms.log_retention_days,
        public_prefix=key.public_prefix,
        limits=_limits_to_pb(terms.limits, tiers),
        spend_limit=_spend_limit_to_pb(terms.spend_limit),
    )


def watch_message_to_pb(message: KeyChange | Heartbeat | Reset, heartbeat_s: float) -> pb.WatchKeysResponse:
    match message:
        case KeyChange(revision, str(key_id), _):
            return pb.WatchKeysResponse(change=pb.KeyChange(revision=revision, key_id=key_id))
        case KeyChange(revision, _, account_id):
            assert account_id is not None  # a change has one of the two (store.py)
            return pb.WatchKeysResponse(change=pb.KeyChange(revision=revision, account_id=account_id))
        case Heartbeat(revision):
            interval = Duration()
            interval.FromMilliseconds(round(heartbeat_s * 1000))
            return pb.WatchKeysResponse(heartbeat=pb.WatchHeartbeat(revision=revision, interval=interval))
        case Reset(revision):
            return pb.WatchKeysResponse(reset=pb.WatchReset(revision=revision))


def _masked(message: Any, paths: Sequence[str], fields: Mapping[str, Callable[[Any], object]]) -> dict[str, object]:
    return {path: fields[path](message) for path in validated_paths(paths, tuple(fields))}


def _state_from_pb(account: pb.Account) -> AccountState:
    state = _STATE_FROM_PB.get(account.state)
    if state is None:
        raise InvalidArgument("account.state", "give ACCOUNT_STATE_ACTIVE or ACCOUNT_STATE_SUSPENDED")
    return state


def _scopes_from_pb(key: pb.Key) -> tuple[Scope, ...]:
    for position, number in enumerate(key.scopes):
        if number not in _SCOPE_FROM_PB:
            raise InvalidArgument(f"key.scopes[{position}]", "give SCOPE_INFERENCE or SCOPE_MANAGEMENT")
    return tuple(_SCOPE_FROM_PB[number] for number in key.scopes)


def expire_time_from_pb(message: pb.Key | pb.RotateOwnKeyRequest, field: str = "key.expire_time") -> datetime | None:
    """A message's expire_time; None where it has none.

    Raises:
        InvalidArgument: no such moment.
    """
    if not message.HasField("expire_time"):
        return None
    return datetime_from_pb(field, message.expire_time)


def overlap_from_pb(request: pb.RotateOwnKeyRequest) -> timedelta:
    """For how long a rotated key goes on working; the bounds are not looked at yet.

    Raises:
        InvalidArgument: no such duration.
    """
    return timedelta_from_pb("overlap", request.overlap)


def _limits_to_pb(limits: KeyLimits, tiers: Tiers) -> pb.KeyLimits | None:
    if limits == NO_LIMITS:
        return None
    holding = effective(limits, tiers)
    return pb.KeyLimits(
        tier=holding.tier,
        requests_per_minute=holding.requests_per_minute,
        tokens_per_minute=holding.tokens_per_minute,
        concurrent_requests=holding.concurrent_requests,
    )


def _limits_from_pb(key: pb.Key) -> KeyLimits:
    limits = key.limits
    return KeyLimits(limits.tier, limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests)


def _spend_limit_to_pb(limit: SpendLimit | None) -> pb.SpendLimit | None:
    if limit is None:
        return None
    return pb.SpendLimit(limit_nanousd=limit.limit_nanousd, period=_PERIOD_TO_PB[limit.period])


def _spend_limit_from_pb(key: pb.Key) -> SpendLimit | None:
    if not key.HasField("spend_limit"):
        return None
    period = _PERIOD_FROM_PB.get(key.spend_limit.period)
    if period is None:
        raise InvalidArgument("key.spend_limit.period", "give SPEND_PERIOD_DAY or SPEND_PERIOD_MONTH")
    return SpendLimit(key.spend_limit.limit_nanousd, period)


def _moment_to_pb(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def _optional_moment_to_pb(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else _moment_to_pb(moment)


# What a write may set, and how each is read: the paths of the update masks.
_ACCOUNT_FIELDS: Mapping[str, Callable[[pb.Account], Any]] = {
    "name": lambda account: account.name,
    "state": _state_from_pb,
}
_KEY_FIELDS: Mapping[str, Callable[[pb.Key], Any]] = {
    "name": lambda key: key.name,
    "scopes": _scopes_from_pb,
    "allowed_models": lambda key: tuple(key.allowed_models),
    "expire_time": expire_time_from_pb,
    "log_inputs": lambda key: key.log_inputs,
    "log_outputs": lambda key: key.log_outputs,
    "log_retention_days": lambda key: key.log_retention_days,
    "limits": _limits_from_pb,
    "spend_limit": _spend_limit_from_pb,
}
