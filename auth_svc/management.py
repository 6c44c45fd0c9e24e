"""What customers may do with their own keys. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from auth_svc.accounts import AccountState
from auth_svc.keys import Key, KeyTerms, Scope, Verdict, require_future, revoked, verdict
from chassis.faults import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted

OVERLAP_MAX = timedelta(days=30)
# For so long an account can always be managed after a change: time enough to see the mistake.
MANAGER_LEFT_MIN = timedelta(days=1)


def require_manager(manager: Key | None, account_state: AccountState | None, now: datetime) -> Key:
    """The key in whose name a customer acts.

    Raises:
        PermissionDenied: it is unknown, revoked or expired (MANAGER_NOT_WORKING), its account is suspended
            (MANAGER_SUSPENDED), or it lacks the management scope (MANAGER_OUT_OF_SCOPE).
    """
    found = Verdict.UNKNOWN if manager is None or account_state is None else verdict(manager, account_state, now)
    if found is Verdict.SUSPENDED:
        raise PermissionDenied("MANAGER_SUSPENDED", "the account is suspended")
    if manager is None or found is not Verdict.GRANTED:
        raise PermissionDenied("MANAGER_NOT_WORKING", "the key in whose name this is asked does not work")
    if Scope.MANAGEMENT not in manager.terms.scopes:
        raise PermissionDenied("MANAGER_OUT_OF_SCOPE", "the key in whose name this is asked cannot manage keys")
    return manager


def require_own(key: Key | None, manager: Key) -> Key:
    """A key of the manager's account; of another account's nothing is told, not even that it exists.

    Raises:
        NotFound: KEY_NOT_FOUND.
    """
    if key is None or key.account_id != manager.account_id:
        raise NotFound("KEY_NOT_FOUND", "this account has no key with this id")
    return key


def require_not_revoked(key: Key) -> None:
    """A key that may still be changed.

    Raises:
        FailedPrecondition: KEY_REVOKED.
    """
    if key.revoke_time is not None:
        raise FailedPrecondition("KEY_REVOKED", "the key was revoked, for good: create another one")


def require_retention_within(terms: KeyTerms, days_max: int) -> None:
    """What is logged may not be kept for longer than the operator keeps it.

    Raises:
        InvalidArgument: it is to be.
    """
    if terms.log_retention_days > days_max:
        raise InvalidArgument(
            "key.log_retention_days",
            f"{terms.log_retention_days}: the operator keeps logs for at most {days_max} days",
        )


def require_room(keys: int, keys_max: int) -> None:
    """One more key.

    Raises:
        ResourceExhausted: TOO_MANY_KEYS.
    """
    if keys >= keys_max:
        raise ResourceExhausted(
            "TOO_MANY_KEYS", f"the account has {keys} keys that are not revoked, and may have {keys_max}: revoke some"
        )


def require_a_manager_left(before: Key, left: Iterable[Key], now: datetime) -> None:
    """An account never gives up its last key that can make others: only the operator could let its owner in again.

    `left` are the account's keys after a change of `before`. One of them manages for a day, or for as long as `before`
    would have, so that an expiry in a minute is no way around it.

    Raises:
        FailedPrecondition: LAST_MANAGEMENT_KEY.
    """
    if not _manages(before, now):
        return
    needed_until = min(_end(before), now + MANAGER_LEFT_MIN)
    if not any(_manages(key, now) and _end(key) >= needed_until for key in left):
        raise FailedPrecondition(
            "LAST_MANAGEMENT_KEY",
            "no key with the management scope would be left a day from now: create another one first",
        )


def rotated(key: Key, overlap: timedelta, new_expire_time: datetime | None, now: datetime) -> tuple[Key, KeyTerms]:
    """The old key as it goes on until the overlap ends, and the terms of the one that follows it.

    `new_expire_time` of None leaves the old one's.

    Raises:
        InvalidArgument: an overlap out of its bounds, or an expire_time that has passed.
        FailedPrecondition: the key works no more (KEY_REVOKED, KEY_EXPIRED).
    """
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        raise InvalidArgument("overlap", f"give 0 to {int(OVERLAP_MAX.total_seconds())} seconds")
    require_not_revoked(key)
    expire_time = key.terms.expire_time
    if expire_time is not None and expire_time <= now:
        raise FailedPrecondition("KEY_EXPIRED", "the key has expired: create another one, or change its expiry first")
    terms = key.terms
    if new_expire_time is not None:
        require_future(new_expire_time, now)
        terms = replace(terms, expire_time=new_expire_time)
    if not overlap:
        return revoked(key, now), terms
    end = now + overlap
    ending = end if expire_time is None else min(end, expire_time)
    return replace(key, terms=replace(key.terms, expire_time=ending)), terms


def _manages(key: Key, now: datetime) -> bool:
    return Scope.MANAGEMENT in key.terms.scopes and verdict(key, AccountState.ACTIVE, now) is Verdict.GRANTED


def _end(key: Key) -> datetime:
    return key.terms.expire_time or datetime.max.replace(tzinfo=UTC)
