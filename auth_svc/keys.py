"""API keys: what one allows, and whether it works now."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import TypedDict

from auth_svc.accounts import AccountState
from auth_svc.limits import NO_LIMITS, KeyLimits, SpendLimit, Tiers, validated_limits, validated_spend_limit
from auth_svc.names import validated_allowed_models, validated_name
from chassis.faults import InvalidArgument

LOG_RETENTION_DAYS_MAX = 3650


class Scope(Enum):
    """What a key may be used for. The values are stored."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What the customer sets.

    An empty `allowed_models` allows all. An `expire_time` of None is never. `log_retention_days` of 0 leaves it to the
    operator's default. A `spend_limit` of None is all that the account has.
    """

    name: str
    scopes: tuple[Scope, ...]
    allowed_models: tuple[str, ...] = ()
    expire_time: datetime | None = None
    log_inputs: bool = False
    log_outputs: bool = False
    log_retention_days: int = 0
    limits: KeyLimits = NO_LIMITS
    spend_limit: SpendLimit | None = None


class KeyChanges(TypedDict, total=False):
    """New values of terms; what is absent stays."""

    name: str
    scopes: tuple[Scope, ...]
    allowed_models: tuple[str, ...]
    expire_time: datetime | None
    log_inputs: bool
    log_outputs: bool
    log_retention_days: int
    limits: KeyLimits
    spend_limit: SpendLimit | None


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Times are UTC; a `revoke_time` of None means that it was not revoked."""

    key_id: str
    account_id: str
    public_prefix: str
    terms: KeyTerms
    create_time: datetime
    revoke_time: datetime | None = None


class Verdict(Enum):
    """What becomes of somebody who presents a key. The values are labels of a metric."""

    GRANTED = "granted"
    SUSPENDED = "suspended"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED = "expired"


def verdict(key: Key, account_state: AccountState, now: datetime) -> Verdict:
    """Whether a key that exists works at a moment. At its expire_time it has expired."""
    if key.revoke_time is not None:
        return Verdict.REVOKED
    if key.terms.expire_time is not None and key.terms.expire_time <= now:
        return Verdict.EXPIRED
    if account_state is AccountState.SUSPENDED:
        return Verdict.SUSPENDED
    return Verdict.GRANTED


def validated(terms: KeyTerms, tiers: Tiers) -> KeyTerms:
    """Terms in their canonical form: scopes once each, in a fixed order; of a preset its name alone.

    Raises:
        InvalidArgument: a value that is not allowed, whatever the time is; names the field.
    """
    validated_name("key.name", terms.name)
    validated_allowed_models("key.allowed_models", terms.allowed_models)
    if not 0 <= terms.log_retention_days <= LOG_RETENTION_DAYS_MAX:
        raise InvalidArgument(
            "key.log_retention_days",
            f"{terms.log_retention_days}: give 1 to {LOG_RETENTION_DAYS_MAX} days, or 0 for the operator's default",
        )
    validated_spend_limit("key.spend_limit", terms.spend_limit)
    limits = validated_limits("key.limits", terms.limits, tiers)
    return replace(terms, scopes=_canonical(terms.scopes), limits=limits)


def require_future(expire_time: datetime | None, now: datetime) -> None:
    """Refuses a key that would be dead when it is born; to end a working key, revoke it.

    Raises:
        InvalidArgument: expire_time is not after now.
    """
    if expire_time is not None and expire_time <= now:
        raise InvalidArgument(
            "key.expire_time",
            f"{expire_time.isoformat()} has passed: give a moment to come, or none; to end a key at once, revoke it",
        )


def updated(key: Key, changes: KeyChanges, now: datetime, tiers: Tiers) -> Key:
    """The key with the changes made.

    Raises:
        InvalidArgument: a new value is not allowed.
    """
    if "expire_time" in changes:
        require_future(changes["expire_time"], now)
    return replace(key, terms=validated(replace(key.terms, **changes), tiers))


def revoked(key: Key, now: datetime) -> Key:
    """The key without its power, for good; one that was revoked before stays as it is."""
    return key if key.revoke_time is not None else replace(key, revoke_time=now)


def grants_differ(before: Key, after: Key) -> bool:
    """Whether an edge that holds a grant of the key must forget it. A name is not part of a grant."""
    return after.revoke_time != before.revoke_time or replace(after.terms, name="") != replace(before.terms, name="")


def _canonical(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    if not scopes:
        raise InvalidArgument("key.scopes", "none: give inference, management or both")
    return tuple(scope for scope in Scope if scope in scopes)
