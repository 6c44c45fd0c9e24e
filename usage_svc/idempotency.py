"""Customers' idempotency keys: which request holds a key, and what becomes of a key whose edge went silent.

A claim that was never finished is not freed by time: its request may still be running on an edge that we cannot see,
and freeing it would charge the customer twice. Three things end it: `finish`; the request's outcome in the ledger; and
the seal of the session under which it was to be admitted, since then everything admitted under it has its outcome here,
so that a request without one was never made.
"""

from typing import NamedTuple

from usage_svc import idempotency_store as store
from usage_svc.driver import Script
from usage_svc.events import Ending, Outcome
from usage_svc.rating import day_of
from usage_svc.sessions import SessionId, SessionState

MAX_KEY_CHARS = 255
MAX_BODY_BYTES = 1 << 20
MAX_CONTENT_TYPE_CHARS = 200
SHA256_BYTES = 32


class Claim(NamedTuple):
    """One request's wish for a key."""

    account_id: str
    key: str
    request_sha256: bytes
    request_id: str
    session_id: SessionId


class StoredAnswer(NamedTuple):
    """What a request was answered."""

    status_code: int
    content_type: str
    body: bytes


class Claimed(NamedTuple):
    """How a claim ended: one of the outcomes below, who holds the key, and its answer if that was kept."""

    outcome: str
    request_id: str
    answer: StoredAnswer | None = None


CLAIMED, IN_FLIGHT, FINISHED, MISMATCH = "claimed", "in_flight", "finished", "mismatch"


def claim(wanted: Claim, ttl_s: int) -> Script[Claimed]:
    """Takes a key, or says why not. One transaction."""
    (inserted,) = yield (store.insert(wanted, ttl_s),)
    if inserted:
        return Claimed(CLAIMED, wanted.request_id)
    (rows,) = yield (store.lock(wanted.account_id, wanted.key),)
    if not rows:  # it was freed between the two: the next try gets it
        return Claimed(IN_FLIGHT, wanted.request_id)
    held = store.Held(*rows[0])
    if not held.expired:
        if bytes(held.request_sha256) != wanted.request_sha256:
            return Claimed(MISMATCH, held.request_id)
        if held.request_id == wanted.request_id:  # our answer to it was lost
            return Claimed(CLAIMED, held.request_id)
        if held.finished:
            answer = StoredAnswer(held.status_code, held.content_type, bytes(held.body)) if held.status_code else None
            return Claimed(FINISHED, held.request_id, answer)
        fate = yield from _fate(held)
        if fate is not None:
            return Claimed(fate, held.request_id)
    yield (store.take_over(wanted, ttl_s),)
    return Claimed(CLAIMED, wanted.request_id)


def _fate(held: store.Held) -> Script[str | None]:
    """What became of a request that nobody finished; None: it neither was charged nor answered, and never will be.

    The session is read before the ledger: records that come in between cannot be missed, since a seal follows them.
    """
    sessions, outcomes = yield (
        store.session_state(SessionId(held.spool_uuid, held.incarnation)),
        store.outcome(day_of(held.request_id) or 0, held.request_id),
    )
    if outcomes:
        outcome, ending = outcomes[0]
        return None if is_free_to_repeat(Outcome(outcome), Ending(ending)) else FINISHED
    sealed = bool(sessions) and sessions[0][0] == SessionState.DRAINED
    return None if sealed else IN_FLIGHT


def is_free_to_repeat(outcome: Outcome, ending: Ending) -> bool:
    """Whether a request ended without a charge and without a whole answer. The edge judges its own by the same rule."""
    return outcome in (Outcome.NONE, Outcome.EDGE_LOST) or (
        outcome is Outcome.WAIVED and ending is Ending.UPSTREAM_FAILED
    )


def finish(account_id: str, key: str, request_id: str, *, released: bool, answer: StoredAnswer | None) -> Script[None]:
    """Ends a claim, if it is still this request's."""
    yield (
        store.release(account_id, key, request_id)
        if released
        else store.keep(account_id, key, request_id, answer or StoredAnswer(0, "", b"")),
    )
